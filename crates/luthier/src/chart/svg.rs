//! Shapes as SVG text.

use std::fmt::Write;

use super::shapes::{Anchor, Colour, Shape};

/// A whole document.
pub(super) fn write(shapes: &[Shape], width: f32, height: f32) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"DejaVu Sans, Verdana, sans-serif\">\n"
    );
    for shape in shapes {
        // Writing into a text cannot fail.
        let _ = write_shape(shape, &mut svg);
    }
    svg.push_str("</svg>\n");
    svg
}

fn write_shape(shape: &Shape, svg: &mut String) -> std::fmt::Result {
    match shape {
        Shape::Area { corner: (x, y), size: (width, height), colour, opacity } => {
            let colour = hexadecimal(*colour);
            writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>"
            )
        }
        Shape::Line { points, .. } if points.len() < 2 => Ok(()),
        Shape::Line { points, colour, opacity, width } => {
            svg.push_str("<polyline points=\"");
            for (index, (x, y)) in points.iter().enumerate() {
                let space = if index == 0 { "" } else { " " };
                write!(svg, "{space}{x:.1},{y:.1}")?;
            }
            writeln!(
                svg,
                "\" fill=\"none\" stroke=\"{}\" stroke-opacity=\"{opacity}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"/>",
                hexadecimal(*colour)
            )
        }
        Shape::Dot { centre: (x, y), radius, colour, opacity } => {
            let colour = hexadecimal(*colour);
            writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>"
            )
        }
        Shape::Text(text) => {
            let (x, y) = text.at;
            let anchor = match text.anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            let turned = if text.upwards { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
            let words = text.text.replace('&', "&amp;").replace('<', "&lt;");
            writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{}\" fill=\"{}\" text-anchor=\"{anchor}\"{turned}>{words}</text>",
                text.size,
                hexadecimal(text.colour)
            )
        }
    }
}

fn hexadecimal(Colour(red, green, blue): Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}
