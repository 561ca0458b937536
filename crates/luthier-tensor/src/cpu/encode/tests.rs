use super::*;
use crate::cpu::gemm::decode::decode_row;

/// Numbers like weights: near normal, from a counter.
pub(super) fn weights(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..count).map(|_| 0.04 * (0..6).map(|_| uniform()).sum::<f32>()).collect()
}

fn encoded(dtype: DType, numbers: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; dtype.bytes(numbers.len())];
    encode_blocks(dtype, numbers, &mut bytes);
    bytes
}

fn decoded(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let count = bytes.len() / dtype.block_bytes() * dtype.block_len();
    let mut numbers = vec![f32::NAN; count];
    // SAFETY: whole blocks, and room for their numbers.
    unsafe { decode_row(dtype.into(), bytes.as_ptr(), 0, count, numbers.as_mut_ptr()) };
    numbers
}

/// Root mean square error relative to that of the numbers.
fn relative_error(dtype: DType, numbers: &[f32]) -> f64 {
    let found = decoded(dtype, &encoded(dtype, numbers));
    let square = |pairs: &mut dyn Iterator<Item = f64>| pairs.map(|x| x * x).sum::<f64>();
    let error = square(&mut found.iter().zip(numbers).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    (error / square(&mut numbers.iter().map(|x| f64::from(*x)))).sqrt()
}

#[test]
fn what_bits_can_do() {
    let numbers = weights(64 * 256, 1);
    for (dtype, most) in [
        (DType::Q8_0, 0.006),
        (DType::Q6K, 0.018),
        (DType::Q5K, 0.038),
        (DType::Q5_1, 0.040),
        (DType::Q5_0, 0.046),
        (DType::Q4K, 0.078),
        (DType::Q4_1, 0.080),
        (DType::Q4_0, 0.092),
        (DType::Mxfp4, 0.12),
        (DType::Q3K, 0.17),
        (DType::Q2K, 0.30),
    ] {
        let error = relative_error(dtype, &numbers);
        assert!(error < most && error > most * 0.6, "{dtype}: {error}");
    }
}

#[test]
fn neither_threads_nor_instructions_change_a_byte() {
    let numbers = weights(5 * GRAIN + 256, 2);
    for dtype in DType::BLOCKS {
        let expected = encoded(dtype, &numbers);
        for isa in Isa::available() {
            let mut bytes = vec![0; expected.len()];
            encode_with(isa, dtype, &numbers, &mut bytes);
            assert!(bytes == expected, "{dtype} on {isa:?}");
        }
        let mut bytes = vec![0; expected.len()];
        Cpu::new(Isa::detect(), 3).expect("threads").encode(dtype, &numbers, &mut bytes);
        assert!(bytes == expected, "{dtype} on three threads");
    }
}

#[test]
fn zeros_constants_and_single_numbers() {
    for dtype in DType::BLOCKS {
        let zeros = vec![0.0; 512];
        assert_eq!(decoded(dtype, &encoded(dtype, &zeros)), zeros, "{dtype}");
        for value in [1.0f32, -1.0, 0.0371, -300.0, 3e-4] {
            // Powers of two are coarse, and so are the smallest numbers of f16, of which a scale is one.
            let most = if dtype == DType::Mxfp4 { 0.2 } else { 0.02 };
            let error = relative_error(dtype, &[value; 512]);
            assert!(error < most, "{dtype}: {value} with error {error}");
            for place in [0, 17, 255] {
                let mut single = vec![0.0; 256];
                single[place] = value;
                let error = relative_error(dtype, &single);
                assert!(error < most, "{dtype}: {value} at {place}: {error}");
            }
        }
        // Below every scale.
        assert!(decoded(dtype, &encoded(dtype, &[1e-30; 256])).iter().all(|x| x.abs() < 1e-7), "{dtype}");
        assert!(decoded(dtype, &encoded(dtype, &[f32::MIN_POSITIVE / 4.0; 256])).iter().all(|x| x.abs() < 1e-7));
    }
}

/// What is stored already loses nothing when it is stored again, and our own bytes come back.
#[test]
fn encoding_again_changes_nothing() {
    for seed in 0..40 {
        let spread: Vec<f32> =
            weights(1024, 3 + seed).into_iter().enumerate().map(|(i, x)| x * (1.0 + (i / 64) as f32)).collect();
        for dtype in [DType::Q4_0, DType::Q5_0, DType::Q8_0] {
            let bytes = encoded(dtype, &spread);
            assert!(encoded(dtype, &decoded(dtype, &bytes)) == bytes, "{dtype}");
        }
        // Any bytes at all, as other programs may have chosen them, keep their numbers.
        for dtype in [DType::Q4_0, DType::Q5_0] {
            let mut state = seed + 1;
            let mut bytes: Vec<u8> = (0..64 * dtype.block_bytes())
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            // Scales: finite ones.
            bytes.chunks_mut(dtype.block_bytes()).for_each(|block| block[1] &= 0xbb);
            let numbers = decoded(dtype, &bytes);
            assert_eq!(decoded(dtype, &encoded(dtype, &numbers)), numbers, "{dtype}");
        }
    }
}

#[test]
#[should_panic(expected = "40 numbers are no whole blocks")]
fn blocks_are_whole() {
    encode_blocks(DType::Q4_0, &[0.0; 40], &mut [0; 18]);
}
