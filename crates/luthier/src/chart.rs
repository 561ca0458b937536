//! `training_loss.svg` and `training_loss.png`: the loss of each step, the same smoothed, and the evaluations. Both are a
//! function of the journal, so a run that was interrupted has the chart of one that was not.
//!
//! The chart is a list of shapes ([`shapes`]), laid out once and then written twice: as text ([`svg`]) and as pixels
//! ([`raster`]). Letters come from a font in the program; the machine's own are never asked for.

mod curves;
mod font;
pub(crate) mod range;
mod raster;
mod shapes;
mod svg;
mod ticks;

use std::path::Path;

use anyhow::Context;

use crate::journal::Entry;
use curves::{Curves, Point};
use shapes::{Anchor, Colour, Shape, Text};

/// Names of the files in the output folder.
pub(crate) const FILE_NAMES: [&str; 2] = ["training_loss.svg", "training_loss.png"];

const WIDTH: f32 = 900.0;
const HEIGHT: f32 = 500.0;
const LEFT: f32 = 72.0;
const RIGHT: f32 = WIDTH - 28.0;
const TOP: f32 = 56.0;
const BOTTOM: f32 = HEIGHT - 58.0;

const INK: Colour = Colour(0x22, 0x2b, 0x38);
const GREY: Colour = Colour(0x66, 0x70, 0x80);
const GRID: Colour = Colour(0xe4, 0xe8, 0xee);
const WHITE: Colour = Colour(0xff, 0xff, 0xff);
const BLUE: Colour = Colour(0x1f, 0x6f, 0xb4);
const ORANGE: Colour = Colour(0xe0, 0x6c, 0x1f);
/// How much of the smoothed curve's colour the loss of each step has.
const FAINT: f32 = 0.38;

/// Draws the chart of a journal into an output folder that exists. Older charts stay until the new ones are complete.
///
/// # Errors
/// When the files cannot be written.
pub(crate) fn draw(entries: &[Entry], folder: &Path) -> anyhow::Result<()> {
    let shapes = lay_out(&Curves::of(entries));
    let picture = raster::png(&shapes, WIDTH, HEIGHT).context("the chart cannot be drawn")?;
    let text = svg::write(&shapes, WIDTH, HEIGHT);
    for (name, bytes) in FILE_NAMES.into_iter().zip([text.as_bytes(), &picture]) {
        luthier_files::write_atomically(&folder.join(name), |writer| writer.write_all(bytes))?;
    }
    Ok(())
}

/// From steps and losses to the page.
struct Scale {
    steps: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, step: f64) -> f32 {
        LEFT + (step / self.steps) as f32 * (RIGHT - LEFT)
    }

    fn y(&self, loss: f64) -> f32 {
        BOTTOM - ((loss.clamp(self.low, self.high) - self.low) / (self.high - self.low)) as f32 * (BOTTOM - TOP)
    }

    fn place(&self, point: &Point) -> (f32, f32) {
        (self.x(point.step as f64), self.y(point.loss))
    }
}

fn lay_out(curves: &Curves) -> Vec<Shape> {
    let (low, high) = curves.range();
    let scale = Scale { steps: curves.last_step.max(1) as f64, low, high };
    let mut shapes = vec![Shape::Area { corner: (0.0, 0.0), size: (WIDTH, HEIGHT), colour: WHITE, opacity: 1.0 }];
    axes(&scale, &mut shapes);
    curve(&scale, &curves.raw, (1.2, FAINT), &mut shapes);
    curve(&scale, &curves.smoothed, (2.4, 1.0), &mut shapes);
    let evaluations: Vec<_> = curves.evaluations.iter().map(|point| scale.place(point)).collect();
    shapes.push(Shape::Line { points: evaluations.clone(), colour: ORANGE, opacity: 1.0, width: 2.0 });
    for centre in evaluations {
        shapes.push(Shape::Dot { centre, radius: 5.0, colour: WHITE, opacity: 1.0 });
        shapes.push(Shape::Dot { centre, radius: 3.6, colour: ORANGE, opacity: 1.0 });
    }
    if curves.raw.is_empty() && curves.evaluations.is_empty() {
        let middle = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
        shapes.push(label("no finite loss to draw", middle, 14.0, GREY, Anchor::Middle));
    }
    legend(curves, &mut shapes);
    shapes.push(label("Training loss", (LEFT, 32.0), 18.0, INK, Anchor::Start));
    shapes.push(label(&curves.summary(), (RIGHT, 32.0), 12.0, GREY, Anchor::End));
    shapes
}

fn axes(scale: &Scale, shapes: &mut Vec<Shape>) {
    let mut line =
        |from, to, colour| shapes.push(Shape::Line { points: vec![from, to], colour, opacity: 1.0, width: 1.0 });
    let (losses, decimals) = ticks::of_range(scale.low, scale.high, 7);
    let steps = ticks::of_count(scale.steps, 9);
    for loss in &losses {
        line((LEFT, scale.y(*loss)), (RIGHT, scale.y(*loss)), GRID);
    }
    for step in &steps {
        line((scale.x(*step), BOTTOM), (scale.x(*step), BOTTOM + 5.0), GREY);
    }
    line((LEFT, BOTTOM), (RIGHT, BOTTOM), GREY);
    line((LEFT, TOP), (LEFT, BOTTOM), GREY);
    for loss in losses {
        shapes.push(label(&format!("{loss:.decimals$}"), (LEFT - 9.0, scale.y(loss) + 4.0), 12.0, INK, Anchor::End));
    }
    for step in steps {
        shapes.push(label(&step.to_string(), (scale.x(step), BOTTOM + 20.0), 12.0, INK, Anchor::Middle));
    }
    shapes.push(label("step", ((LEFT + RIGHT) / 2.0, HEIGHT - 14.0), 13.0, INK, Anchor::Middle));
    let side = Text { upwards: true, ..text("loss", (22.0, (TOP + BOTTOM) / 2.0), 13.0, INK, Anchor::Middle) };
    shapes.push(Shape::Text(side));
}

/// Draws the pieces of a curve of width and opacity; a piece of one point is a dot.
fn curve(scale: &Scale, pieces: &[Vec<Point>], (width, opacity): (f32, f32), shapes: &mut Vec<Shape>) {
    for piece in pieces {
        let points: Vec<_> = piece.iter().map(|point| scale.place(point)).collect();
        shapes.push(match points.as_slice() {
            [centre] => Shape::Dot { centre: *centre, radius: width * 1.2, colour: BLUE, opacity },
            _ => Shape::Line { points, colour: BLUE, opacity, width },
        });
    }
}

fn legend(curves: &Curves, shapes: &mut Vec<Shape>) {
    let mut rows = Vec::new();
    if !curves.raw.is_empty() {
        rows.push(("each step", BLUE, 1.2, FAINT));
        rows.push(("smoothed", BLUE, 2.4, 1.0));
    }
    if !curves.evaluations.is_empty() {
        rows.push(("evaluation", ORANGE, 2.0, 1.0));
    }
    if rows.is_empty() {
        return;
    }
    const ROW: f32 = 20.0;
    const SAMPLE: f32 = 26.0;
    let letters = rows.iter().map(|(name, ..)| font::width(name, 12.0)).fold(0.0, f32::max);
    let size = (letters + SAMPLE + 30.0, rows.len() as f32 * ROW + 10.0);
    let corner = (RIGHT - size.0, TOP + 6.0);
    shapes.push(Shape::Area { corner, size, colour: WHITE, opacity: 0.85 });
    for (index, (name, colour, width, opacity)) in rows.into_iter().enumerate() {
        let (x, y) = (corner.0 + 10.0, corner.1 + 15.0 + index as f32 * ROW);
        shapes.push(Shape::Line { points: vec![(x, y), (x + SAMPLE, y)], colour, opacity, width });
        if colour == ORANGE {
            shapes.push(Shape::Dot { centre: (x + SAMPLE / 2.0, y), radius: 3.6, colour, opacity });
        }
        shapes.push(label(name, (x + SAMPLE + 10.0, y + 4.0), 12.0, INK, Anchor::Start));
    }
}

fn text(text: &str, at: (f32, f32), size: f32, colour: Colour, anchor: Anchor) -> Text {
    Text { text: text.to_owned(), at, size, colour, anchor, upwards: false }
}

fn label(words: &str, at: (f32, f32), size: f32, colour: Colour, anchor: Anchor) -> Shape {
    Shape::Text(text(words, at, size, colour, anchor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::{evaluation, event, journal};
    use luthier_train::Event;

    fn steps(losses: impl IntoIterator<Item = f64>) -> Vec<Entry> {
        let entry = |(index, loss)| Entry { elapsed_seconds: 1.0, event: Event::Step(event(index + 1, loss)) };
        losses.into_iter().enumerate().map(entry).collect()
    }

    /// Draws and gives the SVG; both files must be there and the picture must be one.
    fn check(entries: &[Entry], curves: usize, dots: usize) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        draw(entries, folder.path()).expect("drawn");
        let picture = std::fs::read(folder.path().join(FILE_NAMES[1])).expect("a picture");
        let picture = tiny_skia::Pixmap::decode_png(&picture).expect("a PNG");
        assert_eq!((picture.width(), picture.height()), (1800, 1000));
        let svg = std::fs::read_to_string(folder.path().join(FILE_NAMES[0])).expect("a text");
        // The legend has a line for each curve, too.
        assert_eq!(svg.matches("stroke=\"#1f6fb4\"").count(), curves, "{svg}");
        assert_eq!(svg.matches("<circle").count(), dots, "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        svg
    }

    #[test]
    fn a_run_has_both_curves_and_its_evaluations() {
        let svg = check(&journal(), 4, 3);
        for word in ["Training loss", "each step", "smoothed", "evaluation", ">loss<", ">step<"] {
            assert!(svg.contains(word), "{word}");
        }
    }

    #[test]
    fn what_is_not_finite_leaves_gaps() {
        check(&steps([3.0, 2.0, f64::NAN, 2.5, 2.0, f64::INFINITY, 1.0]), 2 + 4, 2);
    }

    #[test]
    fn nothing_one_point_and_nothing_finite_can_be_drawn() {
        assert!(check(&[], 0, 0).contains("no finite loss"));
        check(&steps([2.0]), 2, 2);
        assert!(check(&steps([f64::NAN; 9]), 0, 0).contains("no finite loss"));
        check(&steps([0.0; 9]), 4, 0);
        check(&steps([1e300, 1.0, 1.0]), 4, 0);
    }

    #[test]
    fn thousands_of_steps_are_thinned() {
        let noisy = |index: usize| 2.0 + (index as f64 * 0.7).sin();
        let svg = check(&steps((0..50_000).map(noisy)), 4, 0);
        assert!(svg.len() < 100_000, "{} bytes", svg.len());
    }

    #[test]
    fn an_evaluation_before_the_first_step_is_drawn() {
        let entry = Entry { elapsed_seconds: 0.0, event: Event::Evaluation(evaluation(0, 3.0, 0.1)) };
        check(&[entry], 0, 3);
    }

    #[test]
    fn the_picture_has_ink_where_the_curves_are() {
        let folder = tempfile::tempdir().expect("a folder");
        draw(&steps((0..100).map(|index| 3.0 - index as f64 * 0.02)), folder.path()).expect("drawn");
        let picture = std::fs::read(folder.path().join(FILE_NAMES[1])).expect("a picture");
        let picture = tiny_skia::Pixmap::decode_png(&picture).expect("a PNG");
        let count = |colour: Colour| {
            let is = |pixel: &&tiny_skia::PremultipliedColorU8| {
                (pixel.red(), pixel.green(), pixel.blue()) == (colour.0, colour.1, colour.2)
            };
            picture.pixels().iter().filter(is).count()
        };
        assert!(count(BLUE) > 2000, "{}", count(BLUE));
        // Letters are made of ink.
        assert!(count(INK) > 500, "{}", count(INK));
        assert_eq!(count(ORANGE), 0);
    }
}
