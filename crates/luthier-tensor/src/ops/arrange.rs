//! Values put together from others, without arithmetic but for one sum: a weight as a value, some columns of a value, rows
//! below rows, and one value on top of another. Learned prefixes and prompts are made of these.

use std::ops::Range;

use crate::finality::Additions;
use crate::{DType, Tape, Var, Weight};

impl<'a> Tape<'a> {
    /// `[rows, columns]`: the numbers of a weight, in the tape's storage.
    pub fn parameter(&mut self, weight: &Weight) -> Var {
        let (device, storage) = (self.device().clone(), self.precision().storage());
        // A weight in this storage is read only, as every weight is.
        let as_it_is = weight.value.dtype() == storage;
        let value = if as_it_is { weight.value.clone() } else { device.convert(&weight.value, storage) };
        let additions = Additions::to([weight]);
        let wanted = self.wants(&[], &additions);
        let Some(sum) = weight.gradient.clone().filter(|_| wanted) else {
            return Var::constant(value);
        };
        let out = self.reached(value);
        let slot = out.slot();
        self.record(additions, move |gradients| {
            let Some(upstream) = slot.and_then(|slot| gradients.take(slot)) else { return };
            let device = gradients.device.clone();
            let is_f32 = upstream.dtype() == DType::F32;
            let upstream = if is_f32 { upstream } else { device.convert(&upstream, DType::F32) };
            device.run("add", |cpu| cpu.add(&sum, &upstream));
        });
        out
    }

    /// `[rows, columns.len()]` of `input`.
    ///
    /// # Panics
    /// When a column is not there.
    pub fn columns(&mut self, input: &Var, columns: Range<usize>) -> Var {
        let device = self.device().clone();
        let (rows, width, first) = (input.value().rows(), input.value().columns(), columns.start);
        assert!(columns.end <= width, "columns {columns:?} of {:?}", input.value());
        let value = device.empty(input.value().dtype(), rows, columns.len());
        device.run("columns", |cpu| cpu.take_columns(input.value(), first, &value));
        if !self.wants(&[input], &Additions::NONE) {
            return Var::constant(value);
        }
        let out = self.reached(value);
        let (slot, input_slot) = (out.slot(), input.slot());
        self.record(Additions::NONE, move |gradients| {
            let Some(upstream) = slot.and_then(|slot| gradients.take(slot)) else { return };
            let Some(input_slot) = input_slot else { return };
            let device = gradients.device.clone();
            let (sums, holds) = gradients.target(input_slot, rows, width);
            if !holds {
                device.fill_zero(&sums);
            }
            device.run("columns", |cpu| cpu.add_to_columns(&sums, first, &upstream));
            gradients.put(input_slot, sums);
        });
        out
    }

    /// `[rows of first + copies * rows of second, columns]`: the rows of `first`, below them `scale` times those of `second`
    /// again and again. Its gradient is the sum over its copies, in their order.
    ///
    /// # Panics
    /// When the columns differ.
    pub fn append_rows(&mut self, first: &Var, second: &Var, copies: usize, scale: f32) -> Var {
        let device = self.device().clone();
        let (above, below) = (first.value().clone(), second.value().clone());
        assert_eq!(above.columns(), below.columns(), "{below:?} below {above:?}");
        let (head, count) = (above.rows(), below.rows());
        let value = device.empty(above.dtype(), head + copies * count, above.columns());
        device.copy(&above, &value.slice_rows(0, head));
        for copy in 0..copies {
            let target = value.slice_rows(head + copy * count, count);
            device.run("add", |cpu| cpu.add_scaled(None, &below, scale, &target));
        }
        if !self.wants(&[first, second], &Additions::NONE) {
            return Var::constant(value);
        }
        let out = self.reached(value);
        let (slot, slots) = (out.slot(), (first.slot(), second.slot()));
        self.record(Additions::NONE, move |gradients| {
            let Some(upstream) = slot.and_then(|slot| gradients.take(slot)) else { return };
            let device = gradients.device.clone();
            if slots.1.is_some() && copies > 0 {
                let sum = upstream.slice_rows(head, count);
                for copy in 1..copies {
                    let more = upstream.slice_rows(head + copy * count, count);
                    device.run("add", |cpu| cpu.add(&sum, &more));
                }
                let scaled = device.empty(sum.dtype(), count, sum.columns());
                device.run("add", |cpu| cpu.add_scaled(None, &sum, scale, &scaled));
                gradients.add(slots.1, scaled);
            }
            // Nothing else reads these rows.
            gradients.add(slots.0, upstream.slice_rows(0, head));
        });
        out
    }

    /// `base + scale * input`, of one shape.
    pub fn add_scaled(&mut self, base: &Var, input: &Var, scale: f32) -> Var {
        let device = self.device().clone();
        let (rows, columns) = (input.value().rows(), input.value().columns());
        let value = device.empty(input.value().dtype(), rows, columns);
        device.run("add", |cpu| cpu.add_scaled(Some(base.value()), input.value(), scale, &value));
        if !self.wants(&[base, input], &Additions::NONE) {
            return Var::constant(value);
        }
        let out = self.reached(value);
        let (slot, base_slot, input_slot) = (out.slot(), base.slot(), input.slot());
        self.record(Additions::NONE, move |gradients| {
            let Some(upstream) = slot.and_then(|slot| gradients.take(slot)) else { return };
            let device = gradients.device.clone();
            if input_slot.is_some() {
                let share = device.empty(upstream.dtype(), rows, columns);
                device.run("add", |cpu| cpu.add_scaled(None, &upstream, scale, &share));
                gradients.add(input_slot, share);
            }
            gradients.add(base_slot, upstream);
        });
        out
    }
}
