//! Shapes as pixels, two to a unit, so that a sharp screen shows them sharp.

use tiny_skia::{Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, Transform};

use super::font;
use super::shapes::{Anchor, Colour, Shape, Text};

const PIXELS_PER_UNIT: f32 = 2.0;

/// A PNG file; `None` when there is no room for it.
pub(super) fn png(shapes: &[Shape], width: f32, height: f32) -> Option<Vec<u8>> {
    let mut pixels = Pixmap::new((width * PIXELS_PER_UNIT) as u32, (height * PIXELS_PER_UNIT) as u32)?;
    pixels.fill(Color::WHITE);
    for shape in shapes {
        draw(shape, &mut pixels);
    }
    pixels.encode_png().ok()
}

fn draw(shape: &Shape, pixels: &mut Pixmap) {
    let whole = Transform::from_scale(PIXELS_PER_UNIT, PIXELS_PER_UNIT);
    match shape {
        Shape::Area { corner: (x, y), size: (width, height), colour, opacity } => {
            if let Some(area) = Rect::from_xywh(*x, *y, *width, *height) {
                pixels.fill_rect(area, &paint(*colour, *opacity), whole, None);
            }
        }
        Shape::Line { points, colour, opacity, width } => {
            if let Some(path) = line(points) {
                let stroke =
                    Stroke { width: *width, line_join: LineJoin::Round, line_cap: LineCap::Butt, ..Stroke::default() };
                pixels.stroke_path(&path, &paint(*colour, *opacity), &stroke, whole, None);
            }
        }
        Shape::Dot { centre: (x, y), radius, colour, opacity } => {
            if let Some(path) = PathBuilder::from_circle(*x, *y, *radius) {
                pixels.fill_path(&path, &paint(*colour, *opacity), FillRule::Winding, whole, None);
            }
        }
        Shape::Text(text) => draw_text(text, whole, pixels),
    }
}

fn line(points: &[(f32, f32)]) -> Option<Path> {
    let mut path = PathBuilder::new();
    for (index, (x, y)) in points.iter().enumerate() {
        match index {
            0 => path.move_to(*x, *y),
            _ => path.line_to(*x, *y),
        }
    }
    path.finish()
}

fn draw_text(text: &Text, whole: Transform, pixels: &mut Pixmap) {
    let width = font::width(&text.text, text.size);
    let before = match text.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => width / 2.0,
        Anchor::End => width,
    };
    let turn = Transform::from_rotate(if text.upwards { -90.0 } else { 0.0 });
    let place = turn.post_translate(text.at.0, text.at.1).post_concat(whole).pre_translate(-before, 0.0);
    if let Some(path) = font::outline(&text.text, text.size) {
        pixels.fill_path(&path, &paint(text.colour, 1.0), FillRule::Winding, place, None);
    }
}

fn paint(Colour(red, green, blue): Colour, opacity: f32) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(red, green, blue, (opacity * 255.0).round() as u8);
    paint.anti_alias = true;
    paint
}
