// SPDX-License-Identifier: BSD-3-Clause

/*
 * The functions that TensorRT's Python bindings link against and that the lean
 * runtime does not have. One source, three libraries: compile it with exactly
 * one of NVINFER, NVINFER_PLUGIN and NVONNXPARSER defined.
 *
 * Everything that would create a builder or a parser answers NULL. Only
 * `getBuilderPluginRegistry` is meant to be called: its NULL becomes None in
 * Python, which is how a caller learns that there is no builder.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#if defined(NVINFER) || defined(NVONNXPARSER)
static void *refuse(const char *what)
{
    fprintf(stderr, "engineless environment: there is no TensorRT %s here\n", what);
    return NULL;
}
#endif

#ifdef NVINFER
void *createInferBuilder_INTERNAL(void *logger, int32_t version)
{
    (void)logger, (void)version;
    return refuse("builder");
}

void *getBuilderPluginRegistry(int32_t capability)
{
    (void)capability;
    return NULL;
}
#endif

#ifdef NVINFER_PLUGIN
bool initLibNvInferPlugins(void *logger, const char *lib_namespace)
{
    (void)logger, (void)lib_namespace;
    return true;
}
#endif

#ifdef NVONNXPARSER
void *createNvOnnxParser_INTERNAL(void *network, void *logger, int32_t version)
{
    (void)network, (void)logger, (void)version;
    return refuse("ONNX parser");
}

void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int32_t version)
{
    (void)refitter, (void)logger, (void)version;
    return refuse("ONNX parser refitter");
}

int32_t getNvOnnxParserVersion(void)
{
    return 0;
}
#endif
