//! The activation functions of feed-forward blocks.

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(x)
    Silu,
    /// x * Phi(x), by the error function.
    Gelu,
    /// GELU by its hyperbolic tangent approximation.
    GeluTanh,
    /// max(x, 0)
    Relu,
    /// max(x, 0)^2
    ReluSquared,
    /// The hyperbolic tangent.
    Tanh,
}
