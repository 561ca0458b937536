//! Dataset records, chat templates, tokenising and packing: records in, token batches out.
//!
//! The path of a row, one file each: [`Dataset`] reads a file into [`Record`]s; a [`ChatTemplate`] renders a
//! conversation; `mask` finds which bytes of it are replies; a [`Tokenizer`] turns it into ids; [`tokenize_sft`] and
//! [`tokenize_pt`] make [`Example`]s of a whole dataset and a [`Report`] of all that was cut, dropped or added;
//! [`permutation`] orders them, [`first_fit_decreasing`] packs them. Records that are tokens already go through [`take_tokens`].
//!
//! What it refuses to do: read a clock, print, repair a broken record in silence, or compare token ids to find replies.

mod base64;
mod call_ids;
mod charsmap;
mod conversation;
mod conversation_json;
mod dataset;
mod dataset_info;
mod detect;
mod error;
mod example;
mod gguf_from_json;
mod gguf_to_json;
mod gguf_tokenizer;
mod gguf_word_piece;
mod jinja;
mod layout;
mod layouts;
mod locate;
mod mask;
mod mix;
mod named;
mod names;
mod order;
mod owners;
mod pack;
mod pre_tokenizer;
mod pretrain;
mod python_json;
mod read;
mod records;
mod report;
mod sentence_piece;
mod stream;
mod strftime;
mod template;
mod template_functions;
mod template_limits;
mod template_namespaces;
mod tiktoken;
mod tokenizer;
mod tokenizer_json;
mod tokenizer_model;
mod tokenizer_train;
mod tokens;
mod truncate;

pub use conversation::{Conversation, Judged, Message, Preference, Role, ToolCall};
pub use dataset::{BrokenRecord, Dataset, ReadOptions, read_again};
pub use error::Error;
pub use example::{Example, Refused, RoleSpan, RoleWeights, SftOptions, Tokenized, tokenize_sft};
pub use gguf_tokenizer::GgufTokenizer;
pub use jinja::{Rendered, SpecialTexts};
pub use layout::{AlpacaLayout, Layout, MessagesLayout, PromptLayout, Replies, RoleTags, Roles, Verdict};
pub use mask::{MaskedText, masked_text};
pub use mix::{Interleave, interleave};
pub use named::{TemplateFacts, TemplateOptions, template_facts, template_names};
pub use order::{grouped_by_length, permutation};
pub use pack::{Bins, first_fit_decreasing};
pub use pretrain::{PtOptions, tokenize_pt};
pub use records::Record;
pub use report::{CutRow, Origin, Report, WORST};
pub use stream::StreamDecoder;
pub use template::ChatTemplate;
pub use template_limits::rendering;
pub use tiktoken::is_tiktoken;
pub use tokenizer::{Specials, Tokenizer};
pub use tokenizer_train::{TokenizerKind, TokenizerOptions, TrainedTokenizer, train_tokenizer};
pub use tokens::take_tokens;
pub use truncate::Truncation;
