//! The letters of pictures: DejaVu Sans, cut down to the ASCII characters; its licence lies beside it. A character that
//! it lacks takes its place and stays empty.

use std::sync::OnceLock;

use tiny_skia::{Path, PathBuilder};
use ttf_parser::{Face, OutlineBuilder};

static BYTES: &[u8] = include_bytes!("../../assets/DejaVuSans-ASCII.ttf");

fn face() -> Option<&'static Face<'static>> {
    static FACE: OnceLock<Option<Face<'static>>> = OnceLock::new();
    FACE.get_or_init(|| Face::parse(BYTES, 0).ok()).as_ref()
}

/// How wide a text is whose letters are of this size.
pub(super) fn width(text: &str, size: f32) -> f32 {
    face().map_or(0.0, |face| text.chars().map(|letter| advance(face, letter, size)).sum())
}

/// A text as a path that begins at the origin; `None` when nothing of it is visible.
pub(super) fn outline(text: &str, size: f32) -> Option<Path> {
    let face = face()?;
    let mut pen = Pen { path: PathBuilder::new(), x: 0.0, scale: size / f32::from(face.units_per_em()) };
    for letter in text.chars() {
        if let Some(glyph) = face.glyph_index(letter) {
            face.outline_glyph(glyph, &mut pen);
        }
        pen.x += advance(face, letter, size);
    }
    pen.path.finish()
}

fn advance(face: &Face, letter: char, size: f32) -> f32 {
    let glyph = face.glyph_index(letter).unwrap_or_default();
    f32::from(face.glyph_hor_advance(glyph).unwrap_or(0)) * size / f32::from(face.units_per_em())
}

/// Copies outlines to where the letters stand; a font's y grows upwards.
struct Pen {
    path: PathBuilder,
    x: f32,
    scale: f32,
}

impl Pen {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.scale, -y * self.scale)
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_of_ascii_has_a_width_and_most_have_an_outline() {
        for letter in ' '..='~' {
            let text = letter.to_string();
            assert!(width(&text, 12.0) > 2.0, "{letter:?}");
            assert_eq!(outline(&text, 12.0).is_some(), letter != ' ', "{letter:?}");
        }
        assert!(width("mm", 12.0) > width("ii", 12.0));
        assert_eq!(width("0.123", 10.0), width("4.567", 10.0));
    }

    #[test]
    fn letters_stand_on_the_base_line() {
        let bounds = outline("H", 100.0).expect("an outline").bounds();
        assert_eq!(bounds.bottom(), 0.0);
        assert!((-80.0..-65.0).contains(&bounds.top()), "{bounds:?}");
    }
}
