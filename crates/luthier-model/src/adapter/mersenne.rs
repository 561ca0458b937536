//! The random numbers of PyTorch's CPU generator, for adapters whose file says a seed only. From: Matsumoto & Nishimura 1998;
//! PyTorch 2.11, `ATen/core/MT19937RNGEngine.h` and `TransformationHelper.h`.

const SIZE: usize = 624;
const MIDDLE: usize = 397;

/// The generator.
pub(super) struct Mersenne {
    state: [u32; SIZE],
    next: usize,
}

impl Mersenne {
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [seed; SIZE];
        for index in 1..SIZE {
            let before = state[index - 1];
            state[index] = 1_812_433_253u32.wrapping_mul(before ^ before >> 30).wrapping_add(index as u32);
        }
        Self { state, next: SIZE }
    }

    fn number(&mut self) -> u32 {
        if self.next == SIZE {
            for index in 0..SIZE {
                let joined = self.state[index] & 0x8000_0000 | self.state[(index + 1) % SIZE] & 0x7fff_ffff;
                let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[index] = self.state[(index + MIDDLE) % SIZE] ^ joined >> 1 ^ odd;
            }
            self.next = 0;
        }
        let mut number = self.state[self.next];
        self.next += 1;
        number ^= number >> 11;
        number ^= number << 7 & 0x9d2c_5680;
        number ^= number << 15 & 0xefc6_0000;
        number ^ number >> 18
    }

    /// As `Tensor.uniform_` on f32: 24 random bits.
    pub(super) fn uniform(&mut self, from: f32, to: f32) -> f32 {
        let share = (self.number() & 0x00ff_ffff) as f32 / (1 << 24) as f32;
        share * (to - from) + from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first output of the reference implementation with its usual seed.
    #[test]
    fn numbers_are_those_of_the_reference() {
        let mut random = Mersenne::new(5489);
        assert_eq!([random.number(), random.number()], [3_499_211_612, 581_869_302]);
        let mut random = Mersenne::new(5489);
        assert_eq!((0..10_000).map(|_| random.number()).last(), Some(4_123_659_995));
    }
}
