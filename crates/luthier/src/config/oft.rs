//! What the settings of OFT say.

use super::Targets;
use super::check::Check;

/// OFT as PEFT defines it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OftSettings {
    /// Blocks of each module, or 0.
    pub(crate) blocks: usize,
    /// Columns of a block, or 0: one of both is not.
    pub(crate) block: usize,
    pub(crate) targets: Targets,
    pub(crate) modules_to_save: Vec<String>,
}

impl Check<'_> {
    pub(super) fn oft(&mut self) -> OftSettings {
        let blocks = self.count("oft_rank");
        // A number of blocks that is given alone decides.
        let alone = blocks > 0 && !self.settings.is_given("oft_block_size");
        let block = if alone { 0 } else { self.count("oft_block_size") };
        if (blocks == 0) == (block == 0) {
            self.problem(
                "oft_block_size",
                format!("oft_rank is {blocks} and oft_block_size {block}; expected one of them above 0, the other 0"),
            );
        }
        if block == 1 {
            self.problem("oft_block_size", "oft_block_size is 1, and one column cannot be rotated; expected more");
        }
        OftSettings {
            blocks,
            block,
            targets: self.targets("oft_target", &[]),
            modules_to_save: self.settings.names("additional_target").to_vec(),
        }
    }
}
