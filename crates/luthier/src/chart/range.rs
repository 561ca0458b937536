//! The chart of a range test: loss against learning rate, whose axis is logarithmic, with the suggestion as a line.

use std::path::Path;

use anyhow::Context;

use super::shapes::{Anchor, Shape};
use super::{
    BLUE, BOTTOM, FAINT, GREY, GRID, HEIGHT, INK, LEFT, ORANGE, RIGHT, TOP, Text, WHITE, WIDTH, label, raster, svg,
    text, ticks,
};

/// Names of the files in the output folder.
pub(crate) const FILE_NAMES: [&str; 2] = ["lr_find.svg", "lr_find.png"];

/// A step of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RangePoint {
    pub(crate) rate: f64,
    pub(crate) loss: f64,
    pub(crate) smoothed: f64,
}

/// Draws the test into a folder that exists. `points` are finite and not empty.
///
/// # Errors
/// When the files cannot be written.
pub(crate) fn draw(points: &[RangePoint], suggested: f64, folder: &Path) -> anyhow::Result<()> {
    let shapes = lay_out(points, suggested);
    let picture = raster::png(&shapes, WIDTH, HEIGHT).context("the chart cannot be drawn")?;
    let written = svg::write(&shapes, WIDTH, HEIGHT);
    for (name, bytes) in FILE_NAMES.into_iter().zip([written.as_bytes(), &picture]) {
        luthier_files::write_atomically(&folder.join(name), |writer| writer.write_all(bytes))?;
    }
    Ok(())
}

fn lay_out(points: &[RangePoint], suggested: f64) -> Vec<Shape> {
    let logs = || points.iter().map(|point| point.rate.log10());
    let (first, last) = (logs().fold(f64::INFINITY, f64::min), logs().fold(f64::NEG_INFINITY, f64::max));
    let span = (last - first).max(1e-9);
    let low = points.iter().map(|point| point.smoothed).fold(f64::INFINITY, f64::min);
    // What breaks is cut off, so that the fall before it can be seen.
    let start = points.first().map_or(low, |point| point.smoothed);
    let high = start + 0.6 * (start - low).max(0.1 * start.abs()).max(1e-6);
    let low = low - 0.1 * (high - low);
    let x = |rate: f64| LEFT + ((rate.log10() - first) / span) as f32 * (RIGHT - LEFT);
    let y = |loss: f64| BOTTOM - ((loss.clamp(low, high) - low) / (high - low)) as f32 * (BOTTOM - TOP);
    let mut shapes = vec![Shape::Area { corner: (0.0, 0.0), size: (WIDTH, HEIGHT), colour: WHITE, opacity: 1.0 }];
    let line = |points: Vec<(f32, f32)>, colour, opacity, width| Shape::Line { points, colour, opacity, width };
    let (losses, decimals) = ticks::of_range(low, high, 7);
    for loss in losses {
        shapes.push(line(vec![(LEFT, y(loss)), (RIGHT, y(loss))], GRID, 1.0, 1.0));
        shapes.push(label(&format!("{loss:.decimals$}"), (LEFT - 9.0, y(loss) + 4.0), 12.0, INK, Anchor::End));
    }
    for power in (first - 1e-9).ceil() as i32..=(last + 1e-9).floor() as i32 {
        let place = x(10f64.powi(power));
        shapes.push(line(vec![(place, BOTTOM), (place, BOTTOM + 5.0)], GREY, 1.0, 1.0));
        shapes.push(label(&format!("1e{power}"), (place, BOTTOM + 20.0), 12.0, INK, Anchor::Middle));
    }
    shapes.push(line(vec![(LEFT, BOTTOM), (RIGHT, BOTTOM)], GREY, 1.0, 1.0));
    shapes.push(line(vec![(LEFT, TOP), (LEFT, BOTTOM)], GREY, 1.0, 1.0));
    let curve = |loss: fn(&RangePoint) -> f64| points.iter().map(|point| (x(point.rate), y(loss(point)))).collect();
    shapes.push(line(curve(|point| point.loss), BLUE, FAINT, 1.2));
    shapes.push(line(curve(|point| point.smoothed), BLUE, 1.0, 2.4));
    shapes.push(line(vec![(x(suggested), TOP), (x(suggested), BOTTOM)], ORANGE, 1.0, 2.0));
    shapes.push(label("learning rate", ((LEFT + RIGHT) / 2.0, HEIGHT - 14.0), 13.0, INK, Anchor::Middle));
    let side = Text { upwards: true, ..text("loss", (22.0, (TOP + BOTTOM) / 2.0), 13.0, INK, Anchor::Middle) };
    shapes.push(Shape::Text(side));
    shapes.push(label("Learning rate range test", (LEFT, 32.0), 18.0, INK, Anchor::Start));
    shapes.push(label(&format!("suggested: {suggested:.1e}"), (RIGHT, 32.0), 12.0, GREY, Anchor::End));
    shapes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_drawn_with_its_suggestion() {
        let folder = tempfile::tempdir().expect("a folder");
        let point = |step: i32| {
            let rate = 10f64.powf(-7.0 + f64::from(step) / 10.0);
            RangePoint { rate, loss: 3.0 - 0.1 * f64::from(step % 9), smoothed: 3.0 }
        };
        for points in [(0..70).map(point).collect::<Vec<_>>(), vec![point(0)]] {
            draw(&points, 1e-7, folder.path()).expect("drawn");
            let svg = std::fs::read_to_string(folder.path().join(FILE_NAMES[0])).expect("a text");
            assert!(svg.contains("suggested: 1.0e-7") && !svg.contains("NaN"), "{svg}");
        }
    }
}
