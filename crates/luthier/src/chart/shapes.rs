//! What a chart is made of, in units of a pixel of an ordinary screen; y grows downwards.

/// Red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Colour(pub(super) u8, pub(super) u8, pub(super) u8);

/// Which end of a text is at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Letters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text {
    pub(super) text: String,
    /// On the base line.
    pub(super) at: (f32, f32),
    pub(super) size: f32,
    pub(super) colour: Colour,
    pub(super) anchor: Anchor,
    /// Whether it is read from below.
    pub(super) upwards: bool,
}

/// Something to draw; later ones are above earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Area {
        corner: (f32, f32),
        size: (f32, f32),
        colour: Colour,
        opacity: f32,
    },
    /// Nothing with fewer than two points.
    Line {
        points: Vec<(f32, f32)>,
        colour: Colour,
        opacity: f32,
        width: f32,
    },
    Dot {
        centre: (f32, f32),
        radius: f32,
        colour: Colour,
        opacity: f32,
    },
    Text(Text),
}
