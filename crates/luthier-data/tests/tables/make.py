"""Writes the same rows in every way that Parquet and Arrow files hold them. pip install pyarrow; make.py FOLDER. With pyarrow 26.0.1."""
import json, sys, pathlib
import pyarrow as pa, pyarrow.parquet as pq, pyarrow.ipc as ipc
out = pathlib.Path(sys.argv[1]); out.mkdir(parents=True, exist_ok=True)
rows = []
for i in range(40):
    rows.append({
        "instruction": f"Frage {i} ü" if i % 7 else "",
        "output": None if i == 5 else "x" * (i % 4) + f" Antwort {i // 3}",
        "number": i - 20, "big": i * 10**12, "small": i % 5, "score": i / 8, "half": None if i % 3 else float(i), "flag": i % 3 == 0 if i % 4 else None,
        "kind": ["a", "b", "c"][i % 3],
        "messages": None if i == 3 else [{"role": r, "content": None if (i + j) % 5 == 0 else f"{r} {i}.{j}", "tags": [f"t{k}" for k in range((i + j) % 3)]} for j, r in enumerate(["user", "assistant"][: i % 3])],
        "history": [[f"p{i}", f"r{i}"]] * (i % 3) if i % 5 else None,
        "meta": None if i % 6 == 1 else {"id": i, "deep": {"x": None if i % 2 else f"d{i}"}},
    })
schema = pa.schema([
    ("instruction", pa.string()), ("output", pa.string()), ("number", pa.int32()), ("big", pa.int64()), ("small", pa.uint8()), ("score", pa.float64()), ("half", pa.float32()), ("flag", pa.bool_()),
    ("kind", pa.dictionary(pa.int32(), pa.string())),
    ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("tags", pa.list_(pa.string()))]))),
    ("history", pa.list_(pa.list_(pa.string()))),
    ("meta", pa.struct([("id", pa.int64()), ("deep", pa.struct([("x", pa.string())]))])),
])
t = pa.Table.from_pylist(rows, schema=schema)
(out / "rows.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
for codec in ["none", "snappy", "gzip", "zstd", "brotli"]:
    pq.write_table(t, out / f"{codec}.parquet", compression=codec, row_group_size=17)
pq.write_table(t, out / "v2.parquet", data_page_version="2.0", compression="snappy", data_page_size=64, write_batch_size=8)
pq.write_table(t, out / "plain.parquet", use_dictionary=False, compression="none", data_page_size=64, write_batch_size=8)
plain = t.drop_columns(["kind"])
pq.write_table(plain, out / "delta.parquet", use_dictionary=False, compression="zstd", data_page_version="2.0", column_encoding={"instruction": "DELTA_BYTE_ARRAY", "output": "DELTA_LENGTH_BYTE_ARRAY", "number": "DELTA_BINARY_PACKED", "big": "DELTA_BINARY_PACKED", "flag": "RLE"})
with ipc.new_stream(str(out / "stream.arrow"), schema) as w:
    for b in t.to_batches(max_chunksize=17): w.write_batch(b)
with ipc.new_file(str(out / "file.arrow"), schema) as w:
    for b in t.to_batches(max_chunksize=17): w.write_batch(b)
for c in ["zstd", "lz4"]:
    with ipc.new_stream(str(out / f"{c}.arrow"), schema, options=ipc.IpcWriteOptions(compression=c)) as w: w.write_table(t)
views = pa.schema([("instruction", pa.string_view()), ("output", pa.large_string()), ("number", pa.int16()), ("history", pa.large_list(pa.list_(pa.string(), -1)))])
with ipc.new_stream(str(out / "views.arrow"), views) as w:
    w.write_table(pa.Table.from_pylist([{k: r[k] for k in views.names} for r in rows], schema=views))
# Few bytes that stand for many rows: well, and not.
large = out / "large"; large.mkdir(exist_ok=True)
long = pa.array(["You are a helpful assistant that answers in one short sentence, whatever it is asked, and in verse."]).dictionary_encode()
many = pa.DictionaryArray.from_arrays(pa.array([0] * 10**6, pa.int32()), long.dictionary)
table = pa.table({"instruction": many.cast(pa.string()), "output": many.cast(pa.string())})
pq.write_table(table, large / "million.parquet", compression="zstd", row_group_size=10**6, max_rows_per_page=10**8, data_page_size=10**9)
nothing = pa.table({"instruction": pa.nulls(3 * 10**7, pa.string())})
pq.write_table(nothing, large / "nothing.parquet", compression="zstd", row_group_size=3 * 10**7, max_rows_per_page=10**8, data_page_size=10**9, write_page_index=False, write_statistics=False)
with ipc.new_stream(str(large / "nothing.arrow"), pa.schema([("instruction", pa.null())])) as w:
    w.write_batch(pa.record_batch({"instruction": pa.nulls(10**8)}))
