//! Every kernel, storage type and layout against a product in f64, at sizes that are multiples of nothing, with memory
//! around the operands that turns any sum it enters into NaN.

use super::decode::{bf16_to_f32, decode_row, f32_to_bf16};
use super::*;
use crate::nested::NestedScales;

/// Numbers of guard memory before and after each operand; a multiple of every block length.
const GUARD: usize = 64;

/// A row-major matrix in guarded memory, and what its numbers are.
struct Stored {
    bytes: Vec<u8>,
    nested: Option<NestedScales>,
    dtype: DType,
    lines: usize,
    length: usize,
    stride: usize,
}

/// Every storage type of numbers.
fn all_types() -> impl Iterator<Item = DType> + Clone {
    [DType::F32, DType::Bf16, DType::F16].into_iter().chain(DType::BLOCKS).chain(DType::BITSANDBYTES)
}

fn random(state: &mut u64) -> f32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// 1.0 in f16: block scales of tests are powers of two around it.
const F16_ONE: u16 = 0x3c00;

impl Stored {
    /// Random numbers; the guards and the gaps between lines are NaN.
    fn random(dtype: DType, lines: usize, length: usize, seed: u64) -> Self {
        let block = dtype.block_len();
        let stride = (length + 5).next_multiple_of(block);
        let count = GUARD + lines * stride + GUARD;
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut bytes = vec![0xff; dtype.bytes(count)];
        for line in 0..lines {
            for first in (0..length).step_by(block) {
                let at = dtype.bytes(GUARD + line * stride + first);
                let value = random(&mut state);
                let place = &mut bytes[at..at + dtype.block_bytes()];
                match dtype {
                    DType::F32 => place.copy_from_slice(&value.to_le_bytes()),
                    DType::Bf16 => place.copy_from_slice(&f32_to_bf16(value).to_le_bytes()),
                    DType::F16 => place
                        .copy_from_slice(&(F16_ONE - 0x400).wrapping_add_signed((value * 500.0) as i16).to_le_bytes()),
                    _ => {
                        place.fill_with(|| (random(&mut state) * 127.0) as i8 as u8);
                        // Where a block has its scale, and what is added or taken off.
                        let (scale, minimum) = match dtype {
                            DType::Q2K => (80, Some(82)),
                            DType::Q3K => (108, None),
                            DType::Q6K => (208, None),
                            DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => (0, Some(2)),
                            _ => (0, None),
                        };
                        place[scale..scale + 2].copy_from_slice(&(F16_ONE - 0x1400).to_le_bytes());
                        if let Some(minimum) = minimum {
                            place[minimum..minimum + 2].copy_from_slice(&(F16_ONE - 0x1800).to_le_bytes());
                        }
                        match dtype {
                            DType::Mxfp4 => place[0] = 126, // 2^-1
                            DType::Nf4 | DType::Fp4 => place[..4].copy_from_slice(&(value + 2.0).to_le_bytes()),
                            DType::Nf4Double | DType::Fp4Double => place[0] = (value * 127.0) as i8 as u8,
                            _ => {}
                        }
                    }
                }
            }
        }
        let blocks = lines * stride / block;
        let nested = dtype.has_nested_scales().then(|| {
            let scales: Vec<f32> = (0..blocks.div_ceil(256)).map(|_| random(&mut state) + 2.0).collect();
            NestedScales::new(bytes[dtype.bytes(GUARD)..].as_ptr(), dtype.block_bytes(), 0.5, scales.into())
        });
        Self { bytes, nested, dtype, lines, length, stride }
    }

    fn coding(&self) -> Coding {
        Coding::new(self.dtype, self.nested.as_ref())
    }

    fn address(&self) -> *const u8 {
        self.bytes[self.dtype.bytes(GUARD)..].as_ptr()
    }

    fn operand(&self, layout: Layout) -> Operand {
        Operand { address: self.address(), coding: self.coding(), stride: self.stride, layout }
    }

    /// The numbers as f64, without gaps; rounded to bf16 first if asked.
    fn numbers(&self, as_bf16: bool) -> Vec<f64> {
        let mut numbers = Vec::new();
        for line in 0..self.lines {
            let mut out = vec![0.0; self.length];
            let row = self.address().wrapping_add(line * self.dtype.bytes(self.stride));
            // SAFETY: the line holds the numbers.
            unsafe { decode_row(self.coding(), row, 0, self.length, out.as_mut_ptr()) };
            numbers.extend(
                out.iter().map(|&value| f64::from(if as_bf16 { bf16_to_f32(f32_to_bf16(value)) } else { value })),
            );
        }
        numbers
    }
}

fn stored(dtype: DType, layout: Layout, rows: usize, k: usize, seed: u64) -> Stored {
    match layout {
        Layout::KContiguous => Stored::random(dtype, rows, k, seed),
        Layout::KStrided => Stored::random(dtype, k, rows, seed),
    }
}

/// The product in f64, and the sum of magnitudes that bounds its rounding error.
fn expected(a: &Stored, la: Layout, b: &Stored, lb: Layout, shape: [usize; 3], as_bf16: bool) -> Vec<(f64, f64)> {
    let [m, n, k] = shape;
    let (a, b) = (a.numbers(as_bf16), b.numbers(as_bf16));
    let at = |numbers: &[f64], layout, rows: usize, row: usize, step: usize| match layout {
        Layout::KContiguous => numbers[row * k + step],
        Layout::KStrided => numbers[step * rows + row],
    };
    let mut out = vec![(0.0, 0.0); m * n];
    for i in 0..m {
        for j in 0..n {
            for step in 0..k {
                let product = at(&a, la, m, i, step) * at(&b, lb, n, j, step);
                out[i * n + j].0 += product;
                out[i * n + j].1 += product.abs();
            }
        }
    }
    out
}

fn pools() -> [Pool; 2] {
    [Pool::new(1).expect("threads"), Pool::new(2).expect("threads")]
}

fn sets() -> Vec<(Isa, Compute)> {
    Isa::available().into_iter().flat_map(|isa| [(isa, Compute::F32), (isa, Compute::Bf16)]).collect()
}

/// f32 output `[m, n]` in NaN-filled memory with a wider stride; asserts that nothing else was written.
fn product(pool: &Pool, isa: Isa, compute: Compute, m: usize, n: usize, products: &[Product]) -> Vec<f32> {
    let stride = n + 3;
    let mut out = vec![f32::NAN; (m + 2) * stride];
    let output = Output { address: out[stride..].as_mut_ptr().cast(), dtype: DType::F32, stride };
    // SAFETY: operands and output are as large as the shapes say.
    unsafe { gemm(pool, isa, compute, m, n, products, output, &Epilogue::NONE) };
    let gaps = out.iter().enumerate().filter(|(at, _)| !(1..=m).contains(&(at / stride)) || at % stride >= n);
    assert!(gaps.into_iter().all(|(_, value)| value.is_nan()), "written outside the output");
    (0..m).flat_map(|i| out[(i + 1) * stride..][..n].to_vec()).collect()
}

fn check(isa: Isa, compute: Compute, dtypes: [DType; 2], layouts: [Layout; 2], shape: [usize; 3], pool: &Pool) {
    let [m, n, k] = shape;
    let [la, lb] = layouts;
    let a = stored(dtypes[0], la, m, k, 1 + m as u64);
    let b = stored(dtypes[1], lb, n, k, 2 + n as u64);
    let as_bf16 = compute == Compute::Bf16 && isa.bf16_multiplies();
    let out = product(pool, isa, compute, m, n, &[Product { a: a.operand(la), b: b.operand(lb), k }]);
    for (at, (value, (sum, magnitude))) in out.iter().zip(expected(&a, la, &b, lb, shape, as_bf16)).enumerate() {
        let error = (f64::from(*value) - sum).abs();
        assert!(
            error <= 1e-6 * magnitude * (k as f64).sqrt().max(1.0),
            "{isa:?} {compute:?} {dtypes:?} {layouts:?} {m}x{n}x{k} at {},{}: {value} for {sum}",
            at / n,
            at % n
        );
    }
}

const LAYOUTS: [Layout; 2] = [Layout::KContiguous, Layout::KStrided];

#[test]
fn every_kernel_layout_and_size() {
    let [one, two] = pools();
    let sizes = [1, 15, 17, 33, 257];
    for (isa, compute) in sets() {
        for la in LAYOUTS {
            for lb in LAYOUTS {
                for dtype in [DType::F32, DType::Bf16] {
                    for (i, m) in sizes.into_iter().enumerate() {
                        for (j, n) in sizes.into_iter().enumerate() {
                            for (l, k) in sizes.into_iter().enumerate() {
                                // Every pair of sizes, with the third one going round.
                                if (i + j + l) % 3 == 0 {
                                    let pool = if (i + j) % 2 == 0 { &one } else { &two };
                                    check(isa, compute, [dtype, dtype], [la, lb], [m, n, k], pool);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_storage_type_on_either_side() {
    let [_, pool] = pools();
    let dtypes = all_types();
    for (isa, compute) in sets() {
        for dtype in dtypes.clone() {
            for (la, lb) in [(LAYOUTS[0], LAYOUTS[0]), (LAYOUTS[0], LAYOUTS[1]), (LAYOUTS[1], LAYOUTS[1])] {
                let round = |size: usize, layout, along| {
                    if layout == along { size.next_multiple_of(dtype.block_len()) } else { size }
                };
                let (m, n, k) = (33, 70, 45);
                let k_b = round(k, lb, Layout::KContiguous);
                check(isa, compute, [DType::F32, dtype], [la, lb], [m, round(n, lb, Layout::KStrided), k_b], &pool);
                let k_a = round(k, la, Layout::KContiguous);
                check(isa, compute, [dtype, DType::Bf16], [la, lb], [round(m, la, Layout::KStrided), n, k_a], &pool);
            }
        }
    }
}

#[test]
fn sums_that_take_many_blocks() {
    let [one, two] = pools();
    for (isa, compute) in sets() {
        let dtype = if compute == Compute::Bf16 { DType::Bf16 } else { DType::F32 };
        for layouts in [[LAYOUTS[0]; 2], [LAYOUTS[1]; 2], [LAYOUTS[0], LAYOUTS[1]]] {
            check(isa, compute, [dtype; 2], layouts, [35, 67, 5001], &two);
            check(isa, compute, [dtype; 2], layouts, [97, 33, 1111], &one);
        }
    }
}

#[test]
fn wide_and_tall_outputs() {
    let [_, two] = pools();
    for (isa, compute) in sets() {
        check(isa, compute, [DType::Bf16; 2], [LAYOUTS[0]; 2], [3, 5003, 9], &two);
        check(isa, compute, [DType::Bf16; 2], [LAYOUTS[1]; 2], [4001, 7, 70], &two);
    }
}

/// A base product with two short ones behind it is one sum.
#[test]
fn several_products_are_one_sum() {
    let pools = pools();
    for (isa, compute) in sets() {
        let as_bf16 = compute == Compute::Bf16 && isa.bf16_multiplies();
        for k in [40, 1000, 2100] {
            let (m, n) = (37, 50);
            let ks = [k, 8, 3];
            let parts: Vec<_> = ks
                .iter()
                .enumerate()
                .map(|(i, &k)| {
                    let (la, lb) = (LAYOUTS[i % 2], LAYOUTS[i.div_ceil(2) % 2]);
                    (
                        stored(DType::F32, la, m, k, 7 + i as u64),
                        la,
                        stored(DType::Bf16, lb, n, k, 17 + i as u64),
                        lb,
                        k,
                    )
                })
                .collect();
            let products: Vec<_> =
                parts.iter().map(|(a, la, b, lb, k)| Product { a: a.operand(*la), b: b.operand(*lb), k: *k }).collect();
            let sums: Vec<_> =
                parts.iter().map(|(a, la, b, lb, k)| expected(a, *la, b, *lb, [m, n, *k], as_bf16)).collect();
            for pool in &pools {
                for (at, value) in product(pool, isa, compute, m, n, &products).into_iter().enumerate() {
                    let (sum, magnitude) = sums.iter().fold((0.0, 0.0), |s, part| (s.0 + part[at].0, s.1 + part[at].1));
                    assert!(
                        (f64::from(value) - sum).abs() < 1e-6 * magnitude * (k as f64).sqrt(),
                        "{isa:?} {compute:?} {k}"
                    );
                }
            }
        }
    }
}

#[test]
fn no_products_is_zero() {
    let [pool, _] = pools();
    for (isa, compute) in sets() {
        assert_eq!(product(&pool, isa, compute, 5, 40, &[]), vec![0.0; 200]);
    }
}

/// A row alone, inside a batch, with one thread and with two: the same bytes.
#[test]
fn rows_do_not_depend_on_the_batch_or_the_threads() {
    let [one, two] = pools();
    let five = Pool::new(5).expect("threads");
    for (isa, compute) in sets() {
        for dtype in [DType::F32, DType::Bf16] {
            for (m, n, k) in [(131, 200, 613), (70, 33, 2500), (300, 97, 31), (700, 70, 3300)] {
                let a = Stored::random(dtype, m, k, 3);
                let b = Stored::random(dtype, n, k, 4);
                let (x, y) = (Stored::random(dtype, m, 8, 5), Stored::random(dtype, n, 8, 6));
                let [la, _] = LAYOUTS;
                let (a, b, x, y) = (a.operand(la), b.operand(la), x.operand(la), y.operand(la));
                let part = |row: usize, column: usize| {
                    [
                        Product { a: a.at(row, 0), b: b.at(column, 0), k },
                        Product { a: x.at(row, 0), b: y.at(column, 0), k: 8 },
                    ]
                };
                let whole = product(&one, isa, compute, m, n, &part(0, 0));
                for pool in [&two, &five] {
                    assert_eq!(whole, product(pool, isa, compute, m, n, &part(0, 0)), "threads, {isa:?}");
                }
                for row in [0, 1, 16, 47, m - 1] {
                    let alone = product(&two, isa, compute, 1, n, &part(row, 0));
                    assert_eq!(alone, whole[row * n..][..n], "row {row}, {isa:?} {compute:?}");
                }
                for column in [0, 5, 31, n - 1] {
                    let alone = product(&two, isa, compute, m, 1, &part(0, column));
                    assert!((0..m).all(|i| alone[i] == whole[i * n + column]), "column {column}, {isa:?} {compute:?}");
                }
            }
        }
    }
}

#[test]
fn the_epilogue_scales_adds_and_rounds_once() {
    let [one, two] = pools();
    for (isa, compute) in sets() {
        for out_dtype in [DType::F32, DType::Bf16] {
            for (m, n, k) in [(1, 1, 3), (37, 45, 40), (70, 100, 2500)] {
                let a = Stored::random(DType::Bf16, m, k, 8);
                let b = Stored::random(DType::Bf16, n, k, 9);
                let products = [Product { a: a.operand(LAYOUTS[0]), b: b.operand(LAYOUTS[0]), k }];
                let sums = product(&one, isa, compute, m, n, &products);
                let bias: Vec<f32> = (0..n).map(|j| j as f32 * 0.25 - 3.0).collect();
                for addend_dtype in [None, Some(DType::F32), Some(DType::Bf16)] {
                    let addend = Stored::random(addend_dtype.unwrap_or(DType::F32), m, n, 10);
                    let numbers = addend.numbers(false);
                    // The output takes the addend's place where their types agree.
                    let in_place = addend_dtype == Some(out_dtype);
                    let stride = if in_place { addend.stride } else { n };
                    let mut out = vec![0xff; out_dtype.bytes(m * stride)];
                    if in_place {
                        out.copy_from_slice(&addend.bytes[out_dtype.bytes(GUARD)..][..out_dtype.bytes(m * stride)]);
                    }
                    let output = Output { address: out.as_mut_ptr(), dtype: out_dtype, stride };
                    let address = if in_place { output.address.cast_const() } else { addend.address() };
                    let epilogue = Epilogue {
                        scale: 0.75,
                        bias: Some(bias.as_ptr()),
                        addend: addend_dtype.map(|dtype| Addend { address, dtype, stride: addend.stride }),
                    };
                    // SAFETY: all of it is as large as the shapes say.
                    unsafe { gemm(&two, isa, compute, m, n, &products, output, &epilogue) };
                    for i in 0..m {
                        let mut row = vec![0.0; n];
                        let line = out[out_dtype.bytes(i * stride)..].as_ptr();
                        // SAFETY: the row holds n numbers.
                        unsafe { decode_row(out_dtype.into(), line, 0, n, row.as_mut_ptr()) };
                        for j in 0..n {
                            let mut value = 0.75 * sums[i * n + j] + bias[j];
                            if addend_dtype.is_some() {
                                value += numbers[i * n + j] as f32;
                            }
                            if out_dtype == DType::Bf16 {
                                value = bf16_to_f32(f32_to_bf16(value));
                            }
                            assert_eq!(row[j], value, "{isa:?} {out_dtype} {addend_dtype:?} {m}x{n}x{k} at {i},{j}");
                        }
                    }
                }
            }
        }
    }
}

/// Rows on whole lines of memory are read where they lie; others are packed. Both give the same bytes.
#[test]
fn rows_in_place_and_packed_give_the_same_bytes() {
    let pools = pools();
    for (isa, compute) in sets() {
        for (m, n, k) in [(1, 100, 64), (70, 100, 640), (95, 131, 1760), (64, 96, 1000)] {
            let a = Stored::random(DType::Bf16, m, k, 13);
            let b = Stored::random(DType::Bf16, n, k, 14);
            let (x, y) = (Stored::random(DType::Bf16, m, 8, 15), Stored::random(DType::Bf16, n, 8, 16));
            let stride = k.next_multiple_of(32);
            // NaN in the gaps, and nothing behind the last number.
            let mut copy = vec![[0xffff_u16; 32]; ((m - 1) * stride + k).div_ceil(32) + 1];
            let copy = copy.as_flattened_mut();
            let start = copy.as_ptr().align_offset(64);
            for row in 0..m {
                for step in 0..k {
                    let at = DType::Bf16.bytes(GUARD + row * a.stride + step);
                    copy[start + row * stride + step] = u16::from_le_bytes([a.bytes[at], a.bytes[at + 1]]);
                }
            }
            let [along, _] = LAYOUTS;
            let on_lines = Operand { address: copy[start..].as_ptr().cast(), stride, ..a.operand(along) };
            let part = |a| {
                let second = Product { a: x.operand(along), b: y.operand(along), k: 8 };
                [Product { a, b: b.operand(along), k }, second]
            };
            for pool in &pools {
                let packed = product(pool, isa, compute, m, n, &part(a.operand(along)));
                assert_eq!(
                    product(pool, isa, compute, m, n, &part(on_lines)),
                    packed,
                    "{isa:?} {compute:?} {m}x{n}x{k}"
                );
            }
        }
    }
}

/// With few columns the operands change places; the bytes stay.
#[test]
fn few_columns_give_the_same_bytes_as_many() {
    let pools = pools();
    for (isa, compute) in sets() {
        for dtype in [DType::F32, DType::Bf16] {
            for la in LAYOUTS {
                for (m, n, k) in [(150, 8, 300), (333, 14, 2000), (97, 24, 1394)] {
                    let many = 70;
                    let a = stored(dtype, la, m, k, 21);
                    let b = stored(dtype, LAYOUTS[1], many, k, 22);
                    let products = [Product { a: a.operand(la), b: b.operand(LAYOUTS[1]), k }];
                    let whole = product(&pools[0], isa, compute, m, many, &products);
                    for pool in &pools {
                        let few = product(pool, isa, compute, m, n, &products);
                        assert!((0..m).all(|i| few[i * n..][..n] == whole[i * many..][..n]), "{isa:?} {m}x{n}x{k}");
                    }
                }
            }
        }
    }
}

#[test]
fn packed_operands_multiply_as_the_driver_does() {
    let [pool, _] = pools();
    for (isa, compute) in sets() {
        let kernels = Kernels::new(isa, compute);
        for (m, n, k) in [(1, 1, 1), (15, 17, 33), (64, 64, 64), (33, 257, 80), (64, 128, 1000)] {
            for (la, lb) in [(LAYOUTS[0], LAYOUTS[0]), (LAYOUTS[1], LAYOUTS[1])] {
                let a = stored(DType::Bf16, la, m, k, 11);
                let b = stored(DType::F32, lb, n, k, 12);
                let (a, b) = (a.operand(la), b.operand(lb));
                let whole = product(&pool, isa, compute, m, n, &[Product { a, b, k }]);
                let stride = n + 1;
                let mut c = vec![f32::NAN; m * stride];
                let mut packed_a = vec![0u8; kernels.packed_a_bytes(m, k)];
                let mut packed_b = vec![0u8; kernels.packed_b_bytes(n, k)];
                // SAFETY: everything is as large as asked for.
                unsafe {
                    kernels.pack_a(&a, m, k, packed_a.as_mut_ptr());
                    kernels.pack_b(&b, n, k, packed_b.as_mut_ptr());
                    let (a, b) = (packed_a.as_ptr(), packed_b.as_ptr());
                    kernels.multiply(m, n, k, a, b, c.as_mut_ptr(), stride, false);
                    for i in 0..m {
                        assert_eq!(c[i * stride..][..n], whole[i * n..][..n], "{isa:?} {compute:?} {m}x{n}x{k}");
                        assert!(c[i * stride + n].is_nan());
                    }
                    kernels.multiply(m, n, k, a, b, c.as_mut_ptr(), stride, true);
                }
                for i in 0..m {
                    for j in 0..n {
                        assert!((c[i * stride + j] - 2.0 * whole[i * n + j]).abs() <= 1e-4 * k as f32, "{isa:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn scratch_memory_has_a_bound() {
    for (isa, compute) in sets() {
        assert!(scratch_bytes(isa, compute) < 4 << 20, "{isa:?} {compute:?}");
    }
}

#[test]
fn few_rows_of_any_weight() {
    let pools = pools();
    let dtypes = all_types();
    for isa in Isa::available() {
        for dtype in dtypes.clone() {
            for (m, n, k) in [(1, 1, 1usize), (2, 33, 257), (4, 70, 300), (3, 200, 1024), (1, 257, 64)] {
                let k = k.next_multiple_of(dtype.block_len());
                let [along, _] = LAYOUTS;
                let x = Stored::random(DType::Bf16, m, k, 3);
                let w = Stored::random(dtype, n, k, 4);
                let (xa, b) = (Stored::random(DType::F32, m, 8, 5), Stored::random(DType::F32, n, 8, 6));
                let products = [
                    Product { a: x.operand(along), b: w.operand(along), k },
                    Product { a: xa.operand(along), b: b.operand(along), k: 8 },
                ];
                let base = expected(&x, along, &w, along, [m, n, k], false);
                let term = expected(&xa, along, &b, along, [m, n, 8], false);
                let bias: Vec<f32> = (0..n).map(|j| j as f32).collect();
                let mut out = vec![f32::NAN; m * (n + 1)];
                let output = Output { address: out.as_mut_ptr().cast(), dtype: DType::F32, stride: n + 1 };
                let added = Stored::random(DType::Bf16, m, n, 7);
                let addend = Addend { address: added.address(), dtype: DType::Bf16, stride: added.stride };
                let epilogue = Epilogue { scale: 2.0, bias: Some(bias.as_ptr()), addend: Some(addend) };
                let added = added.numbers(false);
                let mut results = pools.iter().map(|pool| {
                    // SAFETY: all of it is as large as the shapes say.
                    unsafe { crate::cpu::gemv::gemv(pool, isa, m, n, &products, output, &epilogue) };
                    out.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
                });
                let first = results.next();
                assert_eq!(first, results.next(), "threads");
                for (at, bits) in first.into_iter().flatten().enumerate() {
                    let (i, j) = (at / (n + 1), at % (n + 1));
                    let value = f64::from(f32::from_bits(bits));
                    if j == n {
                        assert!(value.is_nan());
                        continue;
                    }
                    let (base, term) = (base[i * n + j], term[i * n + j]);
                    let sum = 2.0 * (base.0 + term.0) + j as f64 + added[i * n + j];
                    let bound = 1e-5 * (base.1 + term.1 + j as f64 + 1.0);
                    assert!((value - sum).abs() <= bound, "{isa:?} {dtype} {m}x{n}x{k} at {i},{j}: {value} for {sum}");
                }
            }
        }
    }
}
