# SPDX-License-Identifier: BSD-3-Clause

"""A drawing for each example, which the gallery shows above its title."""

import math
import re
from pathlib import Path

BLUE, GREEN, GREY, DARK, PALE = "#3d7ec2", "#76b900", "#9aa5b1", "#1f2933", "#dfe7d3"


def box(x, y, width, height, colour, **more):
    extra = "".join(f' {name.replace("_", "-")}="{v}"' for name, v in more.items())
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" '
        f'fill="{colour}"{extra}/>'
    )


def line(points, colour=DARK, width=5, **more):
    extra = "".join(f' {name.replace("_", "-")}="{v}"' for name, v in more.items())
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<polyline points="{places}" fill="none" stroke="{colour}" '
        f'stroke-width="{width}" stroke-linejoin="round"{extra}/>'
    )


def arrow(*points):
    return line(points, marker_end="url(#head)")


def text(x, y, words, size=30, colour=DARK):
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" '
        f'text-anchor="middle" font-family="monospace">{words}</text>'
    )


def grid(rows, columns, colour_of, x=90, y=30, cell=22, gap=4):
    step = cell + gap
    for row in range(rows):
        for column in range(columns):
            colour = colour_of(row, column)
            yield box(x + column * step, y + row * step, cell, cell, colour)


def triton():
    """The curve of SiLU."""
    yield line([(40, 170), (360, 170)], GREY, 3)
    yield line([(230, 30), (230, 230)], GREY, 3)
    xs = [i / 10 for i in range(-60, 41)]
    curve = ((x, x / (1 + math.exp(-x))) for x in xs)
    yield line([(230 + x * 31, 170 - y * 34) for x, y in curve], GREEN, 9)


def existing_op():
    """A kernel in the body of an op."""
    yield box(50, 40, 300, 180, PALE)
    yield text(200, 85, "@custom_op")
    yield box(110, 115, 180, 75, GREEN)
    yield text(200, 163, "kernel", colour="white")


def library():
    """Books, one of which is taken."""
    for i, height in enumerate((150, 180, 140, 170, 155)):
        raised = 40 if i == 2 else 0
        colour = GREEN if i == 2 else (BLUE, GREY)[i % 2]
        yield box(80 + i * 50, 230 - height - raised, 42, height, colour)
    yield line([(60, 235), (345, 235)], DARK, 6)


def autotuned():
    """Times of configs, the shortest in another colour."""
    for i, width in enumerate((250, 190, 120, 165, 220)):
        yield box(70, 35 + i * 42, width, 28, GREEN if i == 2 else GREY)
    yield line([(64, 20), (64, 245)], DARK, 5)


def dynamic_shapes():
    """One engine, many sizes."""
    for width, height, colour in ((290, 190, PALE), (200, 130, GREY), (90, 65, GREEN)):
        yield box(55, 230 - height, width, height, colour, stroke=DARK, stroke_width=3)
    yield arrow((75, 210), (325, 55))


def weights_attributes():
    """Codes, and a scale for each group."""
    shades = ("#c8d6e5", "#8fb3d9", BLUE, "#25517f")
    yield from grid(7, 6, lambda r, c: shades[(r * 5 + c * 3 + r * c) % 4], x=60)
    yield from grid(7, 1, lambda r, c: GREEN, x=240)
    yield text(315, 130, "x 0.5")


def packed_format():
    """Channels that are apart, and the same ones together."""
    colours = (BLUE, GREEN, GREY, DARK)
    yield from grid(4, 4, lambda r, c: colours[r], x=50, y=75, cell=24)
    yield arrow((175, 127), (215, 127))
    yield from grid(4, 4, lambda r, c: colours[c], x=240, y=75, cell=24)


def two_launches():
    """Many, one, many."""
    for i in range(6):
        yield line([(75 + i * 50, 70), (200, 130)], GREY, 3)
        yield line([(200, 130), (75 + i * 50, 195)], GREY, 3)
        yield box(55 + i * 50, 35, 40, 40, BLUE)
        yield box(55 + i * 50, 190, 40, 40, GREEN)
    yield box(175, 110, 50, 42, DARK)


def in_place():
    """A vector, turned."""
    yield '<circle cx="200" cy="132" r="100" fill="none" stroke="#9aa5b1" '
    yield 'stroke-width="3"/>'
    yield line([(200, 132), (296, 108)], GREY, 5, marker_end="url(#head)")
    yield line([(200, 132), (235, 42)], GREEN, 7, marker_end="url(#head)")
    turn = [math.radians(angle) for angle in range(18, 66, 4)]
    yield arrow(*((200 + 62 * math.cos(a), 132 - 62 * math.sin(a)) for a in turn))


def attention():
    """Tiles of scores up to the diagonal."""
    colours = {True: GREEN, False: "#c3dd8f"}
    yield from grid(
        8, 8, lambda r, c: colours[r == c] if c <= r else "#edf0e8", x=98, y=26
    )


def fp8_gemm():
    """A sign, four bits of exponent, three of mantissa."""
    for i, bit in enumerate("01000110"):
        colour = DARK if i == 0 else BLUE if i < 5 else GREEN
        yield box(26 + i * 44, 95, 38, 64, colour)
        yield text(45 + i * 44, 138, bit, colour="white")
    yield text(200, 205, "2.0 x 1.75 = 3.5", 26)


def cutile():
    """A tile of an array."""
    inside = range(2, 5)
    yield from grid(
        8, 8, lambda r, c: GREEN if r in inside and c in inside else "#d5dbe1", 98, 26
    )
    yield box(148, 76, 78, 78, "none", stroke=DARK, stroke_width=5)


def cutedsl():
    """A layout: the order of elements in memory."""
    order = [
        (110 + 60 * (i % 2 + 2 * (i // 4 % 2)), 60 + 50 * (i // 2 % 2 + 2 * (i // 8)))
        for i in range(16)
    ]
    yield line(order, GREEN, 5)
    for i, (x, y) in enumerate(order):
        yield f'<circle cx="{x}" cy="{y}" r="16" fill="{BLUE}"/>'
        yield text(x, y + 6, i, 17, "white")


def cuda():
    """How a kernel in CUDA C++ starts."""
    yield box(40, 60, 320, 140, DARK)
    yield text(200, 115, "__global__", 34, "#b9dd77")
    yield text(200, 165, "void f(...)", 34, "white")


def several_backends():
    """Three languages, one op."""
    for i, colour in enumerate((BLUE, DARK, GREEN)):
        yield box(45, 40 + i * 68, 100, 48, colour)
        yield line([(145, 64 + i * 68), (255, 132)], GREY, 4)
    yield box(250, 100, 105, 64, PALE, stroke=DARK, stroke_width=4)
    yield text(302, 141, "op")


def llm_block():
    """The layers of a decoder: kernels of one's own between TensorRT's."""
    for i in range(7):
        colour = GREEN if i % 2 == 0 else "#c8ced4"
        yield box(110, 22 + i * 31, 180, 23, colour)
    yield arrow((330, 30), (330, 228))


def draw(name):
    """The drawing of an example, or of any kernel where the example has none."""
    shapes = "\n".join(globals().get(name, existing_op)())
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 260">\n'
        '<defs><marker id="head" viewBox="0 0 10 10" refX="6" refY="5" '
        'markerWidth="4" markerHeight="4" orient="auto"><path d="M0 0 L10 5 L0 10 z" '
        f'fill="{DARK}"/></marker></defs>\n'
        f'<rect width="400" height="260" fill="#f7f8f5"/>\n{shapes}\n</svg>\n'
    )


def replace(app):
    """Put the drawings where sphinx-gallery has put pictures of the output, or none."""
    gallery = Path(app.srcdir) / "gallery"
    for page in gallery.glob("custom_plugin_*.rst"):
        drawing = draw(page.stem.removeprefix("custom_plugin_"))
        (gallery / f"images/thumb/sphx_glr_{page.stem}_thumb.svg").write_text(drawing)
    index = gallery / "index.rst"
    thumbnail = r"(sphx_glr_custom_plugin_\w+_thumb)\.png"
    index.write_text(re.sub(thumbnail, r"\1.svg", index.read_text()))
