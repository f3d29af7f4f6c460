// SPDX-License-Identifier: BSD-3-Clause

// Runs a serialized engine with TensorRT's runtime, and nothing else of this project.
//
//     run_engine ENGINE [NAME:SHAPE] [NAME=FILE] ...
//
// NAME:8x512 sets an input's shape (otherwise the profile's opt), NAME=x.bin its values
// as raw bytes (otherwise ones and zeros at random). Prints each output's sum, and the
// time. The process owns all memory on the GPU, and ends with it.

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace nvinfer1;
using Bytes = std::vector<char>;

struct Logger : ILogger {
    void log(Severity severity, char const* text) noexcept override {
        if (severity <= Severity::kWARNING) std::fprintf(stderr, "TensorRT: %s\n", text);
    }
};

void require(bool condition, std::string const& message) {
    if (!condition) throw std::runtime_error(message);
}

void check(cudaError_t error) { require(error == cudaSuccess, cudaGetErrorString(error)); }

template <typename T>
T load(char const* bytes) {
    T value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

double half(uint16_t bits) {
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
        : exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
    return bits >> 15 ? -magnitude : magnitude;
}

double bfloat16(uint16_t bits) {
    uint32_t wide = uint32_t{bits} << 16;
    return load<float>(reinterpret_cast<char*>(&wide));
}

struct Type {
    size_t size;
    uint64_t one;  // its bytes
    double (*number)(char const*);
};

std::map<DataType, Type> const TYPES{
    {DataType::kFLOAT, {4, 0x3f800000, [](char const* p) -> double { return load<float>(p); }}},
    {DataType::kHALF, {2, 0x3c00, [](char const* p) { return half(load<uint16_t>(p)); }}},
    {DataType::kBF16, {2, 0x3f80, [](char const* p) { return bfloat16(load<uint16_t>(p)); }}},
    {DataType::kINT8, {1, 1, [](char const* p) -> double { return load<int8_t>(p); }}},
    {DataType::kUINT8, {1, 1, [](char const* p) -> double { return load<uint8_t>(p); }}},
    {DataType::kBOOL, {1, 1, [](char const* p) -> double { return load<uint8_t>(p); }}},
    {DataType::kINT32, {4, 1, [](char const* p) -> double { return load<int32_t>(p); }}},
    {DataType::kINT64, {8, 1, [](char const* p) -> double { return load<int64_t>(p); }}},
};

Type const& type_of(ICudaEngine const& engine, char const* name) {
    auto found = TYPES.find(engine.getTensorDataType(name));
    require(found != TYPES.end(), std::string(name) + ": its type is not in TYPES");
    return found->second;
}

Bytes read(std::string const& path) {
    std::ifstream file(path, std::ios::binary);
    require(file.good(), path + ": cannot be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

Dims parse(std::string const& text) {
    Dims shape{};
    std::stringstream stream(text);
    for (std::string extent; std::getline(stream, extent, 'x');) {
        require(shape.nbDims < Dims::MAX_DIMS, text + ": too many dimensions");
        shape.d[shape.nbDims++] = std::stoll(extent);
    }
    return shape;
}

void run(int argc, char** argv) {
    require(argc > 1, "usage: run_engine ENGINE [NAME:SHAPE] [NAME=FILE] ...");
    std::map<std::string, std::string> shapes, files;
    for (int i = 2; i < argc; ++i) {
        std::string text = argv[i];
        auto at = text.find_first_of(":=");
        require(at != text.npos, text + ": neither NAME:SHAPE nor NAME=FILE");
        (text[at] == ':' ? shapes : files)[text.substr(0, at)] = text.substr(at + 1);
    }

    Logger logger;
    Bytes blob = read(argv[1]);
    // An interface changes with the major version, and calls would go astray.
    int const library = getInferLibMajorVersion();
    require(library == NV_TENSORRT_MAJOR,
            "compiled for TensorRT " + std::to_string(NV_TENSORRT_MAJOR) + ", and the library is of "
                + std::to_string(library));
    check(cudaFree(nullptr));  // without a driver, what TensorRT returns next is no runtime
    std::unique_ptr<IRuntime> runtime(createInferRuntime(logger));
    require(runtime != nullptr, "TensorRT's runtime does not start");
    std::unique_ptr<ICudaEngine> engine(runtime->deserializeCudaEngine(blob.data(), blob.size()));
    require(engine != nullptr, std::string(argv[1]) + ": no engine for this TensorRT and GPU");
    std::unique_ptr<IExecutionContext> context(engine->createExecutionContext());
    require(context != nullptr, "no execution context can be made");

    std::vector<char const*> inputs, outputs;
    for (int i = 0; i < engine->getNbIOTensors(); ++i) {
        char const* name = engine->getIOTensorName(i);
        require(engine->getTensorLocation(name) == TensorLocation::kDEVICE,
                std::string(name) + ": lies on the host, which this program does not do");
        (engine->getTensorIOMode(name) == TensorIOMode::kINPUT ? inputs : outputs).push_back(name);
    }
    for (char const* name : inputs) {
        Dims shape = shapes.count(name) ? parse(shapes[name])
                                        : engine->getProfileShape(name, 0, OptProfileSelector::kOPT);
        require(context->setInputShape(name, shape), std::string(name) + ": not a shape it takes");
    }

    std::mt19937 random;
    std::map<std::string, std::pair<Bytes, void*>> buffers;
    auto allocate = [&](char const* name, bool is_input) {
        Type const& type = type_of(*engine, name);
        Dims shape = context->getTensorShape(name);
        size_t count = 1;
        for (int i = 0; i < shape.nbDims; ++i) {
            require(shape.d[i] >= 0, std::string(name) + ": its shape depends on data");
            count *= shape.d[i];
        }
        auto& [bytes, device] = buffers[name];
        bytes.resize(count * type.size);
        if (is_input && files.count(name)) {
            Bytes given = read(files[name]);
            require(given.size() == bytes.size(), files[name] + ": not as long as the input");
            bytes = given;
        } else if (is_input) {
            for (size_t i = 0; i < count; ++i)
                if (random() & 1) std::memcpy(&bytes[i * type.size], &type.one, type.size);
        }
        check(cudaMalloc(&device, bytes.size() + 1));  // an empty tensor has an address, too
        check(cudaMemcpy(device, bytes.data(), bytes.size(), cudaMemcpyHostToDevice));
        require(context->setTensorAddress(name, device), std::string(name) + ": no address");
    };
    for (char const* name : inputs) allocate(name, true);
    for (char const* name : outputs) allocate(name, false);

    int const warm_up = 10, timed = 100;
    cudaStream_t stream;
    cudaEvent_t start, stop;
    check(cudaStreamCreate(&stream));
    check(cudaEventCreate(&start));
    check(cudaEventCreate(&stop));
    for (int i = 0; i < warm_up + timed; ++i) {
        if (i == warm_up) check(cudaEventRecord(start, stream));
        require(context->enqueueV3(stream), "the engine does not run");
    }
    check(cudaEventRecord(stop, stream));
    check(cudaStreamSynchronize(stream));

    for (char const* name : outputs) {
        Type const& type = type_of(*engine, name);
        auto& [bytes, device] = buffers[name];
        check(cudaMemcpy(bytes.data(), device, bytes.size(), cudaMemcpyDeviceToHost));
        double sum = 0;
        for (size_t i = 0; i < bytes.size(); i += type.size) sum += type.number(&bytes[i]);
        std::printf("%s: sum %.6g\n", name, sum);
    }
    float milliseconds;
    check(cudaEventElapsedTime(&milliseconds, start, stop));
    std::printf("%.1f us, the mean of %d runs\n", milliseconds * 1000 / timed, timed);
}

int main(int argc, char** argv) {
    try {
        run(argc, argv);
    } catch (std::exception const& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
