"""GGUF files and ggml's block formats, by way of the libraries that llama-cpp-python builds."""

import ctypes
import hashlib
from pathlib import Path

import numpy as np

# ggml's number, numbers of a block, bytes of a block, the name within its functions.
BLOCKS = {
    "Q4_0": (2, 32, 18, "q4_0"),
    "Q4_1": (3, 32, 20, "q4_1"),
    "Q5_0": (6, 32, 22, "q5_0"),
    "Q5_1": (7, 32, 24, "q5_1"),
    "Q8_0": (8, 32, 34, "q8_0"),
    "Q2_K": (10, 256, 84, "q2_K"),
    "Q3_K": (11, 256, 110, "q3_K"),
    "Q4_K": (12, 256, 144, "q4_K"),
    "Q5_K": (13, 256, 176, "q5_K"),
    "Q6_K": (14, 256, 210, "q6_K"),
    "MXFP4": (39, 32, 17, "mxfp4"),
}
PLAIN = {0: ("F32", 4), 1: ("F16", 2), 30: ("BF16", 2)}
NAMES = {number: name for name, (number, *_) in BLOCKS.items()} | {number: name for number, (name, _) in PLAIN.items()}


# llama.cpp says a line for each tensor.
SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, text, data: None)


def library(name="ggml-base"):
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    return ctypes.CDLL(str(next(folder.glob(f"lib{name}.*"))))


def quantise(name, values):
    """llama.cpp's own blocks of f32 numbers, `values` in rows of whole blocks."""
    number, length, width, _ = BLOCKS[name]
    function = library().ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64,
                         ctypes.c_void_p]
    values = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, values.shape[-1])
    made = np.zeros(values.size // length * width, np.uint8)
    function(number, values.ctypes.data, made.ctypes.data, 0, values.shape[0], values.shape[1], None)
    return made


def decode(name, blocks, count):
    """Numbers of a tensor as f32; of blocks by llama.cpp's own function."""
    blocks = np.ascontiguousarray(blocks)
    if name == "F32":
        return blocks.view(np.float32).copy()
    if name == "F16":
        return blocks.view(np.float16).astype(np.float32)
    if name == "BF16":
        return (blocks.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    function = getattr(library(), f"dequantize_row_{BLOCKS[name][3]}")
    function.restype = None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    values = np.empty(count, np.float32)
    function(blocks.ctypes.data, values.ctypes.data, count)
    return values


def error(name, blocks, values):
    """Root mean square error of blocks that stand for `values`."""
    found = decode(name, blocks, values.size).astype(np.float64)
    return float(np.sqrt(np.mean(np.square(found - values.ravel().astype(np.float64)))))


class Gguf:
    """Metadata as bytes, and tensors: type name, dimensions (innermost first), bytes."""

    def __init__(self, path):
        self.data = np.memmap(path, dtype=np.uint8, mode="r")
        self.place = 4
        assert self.number("<u4") == 3
        count, keys = self.number("<u8"), self.number("<u8")
        self.metadata = {}
        for _ in range(keys):
            key, start = self.text(), self.place
            self.skip(self.number("<u4"))
            self.metadata[key] = self.data[start : self.place].tobytes()
        table = []
        for _ in range(count):
            name = self.text()
            dims = [self.number("<u8") for _ in range(self.number("<u4"))]
            table.append((name, NAMES[self.number("<u4")], dims, self.number("<u8")))
        start = -(-self.place // 32) * 32
        self.tensors = {}
        for name, kind, dims, offset in table:
            size = self.size(kind, int(np.prod(dims)))
            self.tensors[name] = (kind, dims, self.data[start + offset : start + offset + size])

    @staticmethod
    def size(kind, count):
        if kind in BLOCKS:
            _, length, width, _ = BLOCKS[kind]
            return count // length * width
        return count * next(width for name, width in PLAIN.values() if name == kind)

    def number(self, kind):
        size = np.dtype(kind).itemsize
        self.place += size
        return np.frombuffer(self.data[self.place - size : self.place].tobytes(), kind)[0].item()

    def text(self):
        length = self.number("<u8")
        self.place += length
        return self.data[self.place - length : self.place].tobytes().decode(errors="replace")

    def skip(self, kind):
        sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
        if kind == 8:
            self.text()
        elif kind == 9:
            inner, count = self.number("<u4"), self.number("<u8")
            for _ in range(count):
                self.skip(inner)
        else:
            self.place += sizes[kind]

    def values(self, name):
        kind, dims, blocks = self.tensors[name]
        return decode(kind, blocks, int(np.prod(dims))).reshape(dims[::-1])


def llama_cpp_quantise(source, target, file_type):
    """A GGUF file as llama.cpp's `llama-quantize` would write it; 0 is f32, 15 is Q4_K_M."""
    import llama_cpp.llama_cpp as lib

    lib.llama_backend_init()
    lib.llama_log_set(SILENT, None)
    parameters = lib.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread, parameters.allow_requantize = file_type, 2, True
    if lib.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)) != 0:
        raise RuntimeError(f"llama.cpp does not quantise {source}")


def digest(blocks):
    return hashlib.sha256(blocks.tobytes()).hexdigest()
