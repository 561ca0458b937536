//! Which columns of the query-key-value tensor belong to which head. A file may keep the three projections apart, side
//! by side, or interleaved by group: their outputs lie in one tensor, and every kernel asks this for the columns.

/// The order of heads in the columns that the query, key and value projections write side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadOrder {
    /// All query heads, all key heads, all value heads.
    Blocks,
    /// For each key-value head: its query heads, its key, its value (InternLM2).
    Groups,
}

/// The heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLayout {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub key_value_heads: usize,
    /// Numbers of one head.
    pub head_dim: usize,
    /// Where they lie.
    pub order: HeadOrder,
}

impl HeadLayout {
    /// Query heads that share a key head.
    pub fn group(&self) -> usize {
        self.heads / self.key_value_heads
    }

    /// Columns in all.
    pub fn columns(&self) -> usize {
        (self.heads + 2 * self.key_value_heads) * self.head_dim
    }

    /// Columns of the attention's output.
    pub fn output_columns(&self) -> usize {
        self.heads * self.head_dim
    }

    /// First column of query head `head`.
    pub fn query_column(&self, head: usize) -> usize {
        let slot = match self.order {
            HeadOrder::Blocks => head,
            HeadOrder::Groups => head / self.group() * (self.group() + 2) + head % self.group(),
        };
        slot * self.head_dim
    }

    /// First column of key head `head`.
    pub fn key_column(&self, head: usize) -> usize {
        let slot = match self.order {
            HeadOrder::Blocks => self.heads + head,
            HeadOrder::Groups => head * (self.group() + 2) + self.group(),
        };
        slot * self.head_dim
    }

    /// First column of value head `head`.
    pub fn value_column(&self, head: usize) -> usize {
        let slot = match self.order {
            HeadOrder::Blocks => self.heads + self.key_value_heads + head,
            HeadOrder::Groups => head * (self.group() + 2) + self.group() + 1,
        };
        slot * self.head_dim
    }

    /// First columns of the heads that positions rotate: all query heads, then all key heads.
    pub fn rotated_columns(&self) -> impl Iterator<Item = usize> + '_ {
        let queries = (0..self.heads).map(|head| self.query_column(head));
        queries.chain((0..self.key_value_heads).map(|head| self.key_column(head)))
    }
}
