"""The text of what plans of devices that the host drives need besides, which `graphc.native.bringing` fills in."""

from __future__ import annotations

from graphc.native.code import Function
from graphc.native.objects import Layout, Writer
from graphc.native.tables import TABLES, T


def _of_stream(layout: Layout) -> Function:
    """Whether a buffer is the device's and the stream's of a plan, if it has one: work of other streams is waited for
    in Python.
    """
    f = Writer(layout, "of_stream", "plan", "buffer", inlined=True)
    stream = f.single("%plan", "stream")
    with f.when(f.equal(stream, 0)):
        f.give(1)
    f.need(f.equal(f.load("%buffer", layout.type), f.shared("%plan", "device_buffer_class")))
    f.give(f.number(f.equal(f.load("%buffer", layout.device_buffer["stream"]), stream)))
    return f


def _unshared(layout: Layout) -> Function:
    """Whether no other stream has to do with a buffer of a plan, which is to be overwritten."""
    f = Writer(layout, "unshared", "plan", "buffer", inlined=True)
    with f.when(f.equal(f.single("%plan", "stream"), 0)):
        f.give(1)
    others = f.load(f.load("%buffer", layout.device_buffer["_block"]), layout.block["others"])
    f.give(f.number(f.equal(others, f.shared("%plan", "none"))))
    return f


def _brought(layout: Layout) -> Function:
    """Keys of draws, and what is brought to another device."""
    f = Writer(layout, "brought", "plan")
    plan, buffers = "%plan", layout.buffer
    with f.each(plan, T["draws"], TABLES["draws"]) as record:
        found, place = f.call("PyObject_CallObject", f.load(record), f.load(record, 8)), f.load(record, 16)
        f.need(f.differ(found, 0), -1)
        f.own(plan, found)
        with f.when(f.differ(place, 0)):
            f.store(f.call("PyLong_AsVoidPtr", f.load(found, buffers["ptr"])), place)
    f.give(1)
    return f


def _launched(layout: Layout) -> Function:
    """Run the program of a plan of another device."""
    f = Writer(layout, "launched", "plan")
    launched = f.call("PyObject_CallNoArgs", f.single("%plan", "launch"))
    f.need(f.differ(launched, 0), -1)
    f.call("Py_DecRef", launched)
    f.give(1)
    return f


def functions(layout: Layout) -> list[Function]:
    """What such plans need."""
    return [make(layout) for make in (_of_stream, _unshared, _brought, _launched)]
