//! The table of all settings: one row each. A setting is added here and in [`crate::config`], nowhere else.

use super::differences::{Difference, Told};
use super::{Group, Kind, Setting, Status};
use Group::{Batch, Data, Evaluation, Hub, Lora, Machine, Method, Model, Optimiser, Output};
use Kind::{Anything, Choice, Names, Number, Options, Switch, Text, Weights, Whole, WholeOrAuto};

/// Every key that Luthier knows, in the order of the reference page.
pub(crate) const SETTINGS: &[Setting] = &[
    // Model
    row(
        Model,
        "model_name_or_path",
        Text,
        "",
        "The base model: a Hugging Face folder, a GGUF file, org/name of the Hugging Face hub, or builtin. Required.",
    ),
    row(Model, "adapter_name_or_path", Names, "", "A PEFT adapter folder to go on training."),
    row(Model, "trust_remote_code", Switch, "false", "Run code that comes with a model.").no_effect(NO_CODE),
    row(Model, "use_fast_tokenizer", Switch, "true", "Which tokenizer to use.").no_effect("there is one tokenizer"),
    row(
        Model,
        "flash_attn",
        Choice(&["auto", "disabled", "sdpa", "fa2", "fa3"], &[]),
        "auto",
        "Which attention to use.",
    )
    .no_effect("attention is always tiled and never stores its scores"),
    row(Model, "low_cpu_mem_usage", Switch, "true", "Load with little memory.")
        .no_effect("files are mapped, not copied"),
    row(Model, "use_kv_cache", Switch, "true", "Use a cache in generation.").no_effect("training generates nothing"),
    row(Model, "enable_liger_kernel", Switch, "false", "Faster kernels.").no_effect(FUSED),
    row(Model, "use_liger_kernel", Switch, "false", "Faster kernels.").no_effect(FUSED),
    row(Model, "liger_kernel_config", Anything, "", "Which of them.").no_effect(FUSED),
    row(Model, "use_unsloth", Switch, "false", "Faster kernels.").no_effect(FUSED),
    row(Model, "use_v1_kernels", Switch, "false", "Faster kernels.").no_effect(FUSED),
    row(Model, "infer_backend", Text, "huggingface", "What generates.").no_effect("training generates nothing"),
    row(Model, "infer_dtype", Text, "auto", "Numbers of generation.").no_effect("training generates nothing"),
    row(Model, "offload_folder", Text, "offload", "Where weights go that do not fit.")
        .no_effect("nothing is offloaded"),
    row(Model, "print_param_status", Switch, "false", "Print every parameter.")
        .no_effect("the trained ones are counted at the start"),
    row(Model, "use_cache", Switch, "false", "Keep keys and values while training.").no_effect("training keeps none"),
    row(
        Model,
        "quantization_bit",
        Whole(2, 8),
        "",
        "Bits of the frozen linear layers: 4 (QLoRA), or 8 (blocks of 32 integers, not LLM.int8()).",
    ),
    row(Model, "quantization_method", Choice(&["bnb"], BEYOND_BITSANDBYTES), "bnb", "Whose formats they are: bitsandbytes'."),
    row(Model, "quantization_type", Choice(&["nf4", "fp4"], &[]), "nf4", "Which four bits: quantiles of the normal distribution, or a small float.")
        .only(QUANTISED),
    row(Model, "quantization_device_map", Anything, "", "Where quantised weights lie.").no_effect("there is one memory"),
    row(Model, "double_quantization", Switch, "true", "Quantise the scales of four bits too, which saves 0.4 bits a weight.")
        .only(QUANTISED),
    row(Model, "adapter_folder", Text, "", "Folder that adapters are in.")
        .refused("give the whole path in adapter_name_or_path"),
    row(Model, "cache_dir", Text, "", "Where downloaded models are kept. Default: the cache of Hugging Face's tools."),
    row(Model, "model_revision", Text, "main", "Branch, tag or commit of a model on the hub."),
    row(Model, "resize_vocab", Switch, "false", "Fit the embedding to the tokenizer.")
        .refused("the vocabulary is not changed yet"),
    row(Model, "add_tokens", Names, "", "Words added to the tokenizer.").refused("the vocabulary is not changed yet"),
    row(Model, "add_special_tokens", Names, "", "Special words added to it.")
        .refused("the vocabulary is not changed yet"),
    row(Model, "new_special_tokens_config", Text, "", "A file of special words.")
        .refused("the vocabulary is not changed yet"),
    row(Model, "init_special_tokens", Text, "noise_init", "How their vectors begin.")
        .no_effect("it only matters with add_special_tokens"),
    row(Model, "split_special_tokens", Switch, "false", "Read special words as text.").refused(NOT_YET),
    row(Model, "rope_scaling", Anything, "", "Stretch the positions.")
        .refused("the scaling of the model's own config.json is used; another is not there yet"),
    row(Model, "shift_attn", Switch, "false", "LongLoRA's attention.").refused(NOT_YET),
    row(Model, "mixture_of_depths", Anything, "", "Mixture of depths.").refused(NOT_YET),
    row(Model, "moe_aux_loss_coef", Number(0.0, f64::MAX), "", "Weight of the routers' loss.").refused(NOT_YET),
    row(
        Model,
        "train_from_scratch",
        Switch,
        "false",
        "Draw the weights from seed; the model gives its config.json and tokenizer only.",
    )
    .only("finetuning_type: full"),
    row(Model, "upcast_layernorm", Switch, "false", "Keep the norms in fp32.").no_effect("norms are computed in fp32"),
    row(Model, "upcast_lmhead_output", Switch, "false", "Keep the logits in fp32.")
        .no_effect("logits are computed in fp32"),
    row(Model, "use_kt", Switch, "false", "Train with KTransformers.")
        .refused("KTransformers is another engine; remove the line to train with this one"),
    row(Model, "image_max_pixels", Anything, "589824", "Size of images.").no_effect(TEXT_ONLY),
    row(Model, "image_min_pixels", Anything, "1024", "Size of images.").no_effect(TEXT_ONLY),
    row(Model, "video_max_pixels", Anything, "65536", "Size of videos.").no_effect(TEXT_ONLY),
    row(Model, "video_min_pixels", Anything, "256", "Size of videos.").no_effect(TEXT_ONLY),
    row(Model, "video_fps", Anything, "2.0", "Frames of videos.").no_effect(TEXT_ONLY),
    row(Model, "video_maxlen", Anything, "128", "Frames of videos.").no_effect(TEXT_ONLY),
    row(Model, "use_audio_in_video", Switch, "false", "Sound of videos.").no_effect(TEXT_ONLY),
    row(Model, "audio_sampling_rate", Anything, "16000", "Rate of sound.").no_effect(TEXT_ONLY),
    row(Model, "freeze_vision_tower", Switch, "true", "Leave the image encoder as it is.").no_effect(TEXT_ONLY),
    row(Model, "freeze_multi_modal_projector", Switch, "true", "Leave the projector as it is.").no_effect(TEXT_ONLY),
    row(Model, "freeze_language_model", Switch, "false", "Leave the language model as it is.")
        .refused("then nothing would be trained: models are text only"),
    row(Model, "image_do_pan_and_scan", Switch, "false", "Cut images up.").no_effect(TEXT_ONLY),
    row(Model, "crop_to_patches", Switch, "false", "Cut images up.").no_effect(TEXT_ONLY),
    row(Model, "kt_weight_path", Text, "", "KTransformers.").no_effect(NO_KT),
    row(Model, "kt_expert_checkpoint_path", Text, "", "KTransformers.").no_effect(NO_KT),
    row(Model, "kt_use_lora_experts", Switch, "", "KTransformers.").no_effect(NO_KT),
    row(Model, "kt_lora_expert_num", Whole(1, i64::MAX), "", "KTransformers.").no_effect(NO_KT),
    row(Model, "kt_lora_expert_intermediate_size", Whole(1, i64::MAX), "", "KTransformers.").no_effect(NO_KT),
    row(Model, "vllm_maxlen", Whole(1, i64::MAX), "4096", "vLLM.").no_effect(GENERATES),
    row(Model, "vllm_gpu_util", Number(0.0, 1.0), "0.7", "vLLM.").no_effect(GENERATES),
    row(Model, "vllm_enforce_eager", Switch, "false", "vLLM.").no_effect(GENERATES),
    row(Model, "vllm_max_lora_rank", Whole(1, i64::MAX), "32", "vLLM.").no_effect(GENERATES),
    row(Model, "vllm_config", Anything, "", "vLLM.").no_effect(GENERATES),
    row(Model, "sglang_maxlen", Whole(1, i64::MAX), "4096", "SGLang.").no_effect(GENERATES),
    row(Model, "sglang_mem_fraction", Number(0.0, 1.0), "0.7", "SGLang.").no_effect(GENERATES),
    row(Model, "sglang_tp_size", Whole(-1, i64::MAX), "-1", "SGLang.").no_effect(GENERATES),
    row(Model, "sglang_config", Anything, "", "SGLang.").no_effect(GENERATES),
    row(Model, "sglang_lora_backend", Text, "triton", "SGLang.").no_effect(GENERATES),
    row(Model, "export_dir", Text, "", "Where an export goes.").no_effect(NO_EXPORT),
    row(Model, "export_size", Whole(1, i64::MAX), "5", "Size of its files.").no_effect(NO_EXPORT),
    row(Model, "export_device", Text, "cpu", "What exports.").no_effect(NO_EXPORT),
    row(Model, "export_quantization_bit", Whole(1, 8), "", "Bits of an export.").no_effect(NO_EXPORT),
    row(Model, "export_quantization_dataset", Text, "", "Data to quantise with.").no_effect(NO_EXPORT),
    row(Model, "export_quantization_nsamples", Whole(1, i64::MAX), "128", "Rows of it.").no_effect(NO_EXPORT),
    row(Model, "export_quantization_maxlen", Whole(1, i64::MAX), "1024", "Their length.").no_effect(NO_EXPORT),
    row(Model, "export_legacy_format", Switch, "false", "Export pickles.").no_effect(NO_EXPORT),
    row(Model, "export_hub_model_id", Text, "", "Where an export is sent.").no_effect(NO_EXPORT),
    // Method
    row(
        Method,
        "stage",
        Choice(&["sft", "pt"], &["rm", "ppo", "dpo", "kto"]),
        "sft",
        "sft trains replies to prompts, pt trains on plain text.",
    ),
    row(Method, "do_train", Switch, "true", "Train.")
        .refused("`luthier train` trains; remove the line, or use dry_run: true to see what would be done")
        .differs_quietly("", "false", "There is nothing else that `luthier train` could do."),
    row(
        Method,
        "finetuning_type",
        Choice(
            &["lora", "full", "freeze", "bitfit", "ia3", "vera", "oft", "prefix", "prompt", "p_tuning", "bottleneck"],
            &[],
        ),
        "lora",
        "What is trained: an adapter, everything, some layers, or biases.",
    ),
    row(
        Method,
        "freeze_trainable_layers",
        Whole(-1_000_000, 1_000_000),
        "2",
        "Layers trained: the last n, or the first when negative.",
    )
    .only("finetuning_type: freeze or use_llama_pro: true"),
    row(
        Method,
        "freeze_layer_interval",
        Whole(1, 1_000_000),
        "",
        "Every k-th layer, in place of freeze_trainable_layers.",
    )
    .only(FREEZE)
    .ours(),
    row(
        Method,
        "freeze_trainable_modules",
        Names,
        "all",
        "Modules of those layers, such as mlp or self_attn.o_proj.",
    )
    .only(FREEZE),
    row(
        Method,
        "freeze_extra_modules",
        Names,
        "",
        "Modules trained besides: embed_tokens, lm_head, or norm, which is every norm.",
    )
    .only(FREEZE),
    row(
        Method,
        "use_llama_pro",
        Switch,
        "false",
        "Train only the layers that `luthier expand` added, or adapters on them.",
    ),
    row(Method, "use_dft_loss", Switch, "false", "DFT loss.").refused(NOT_YET),
    row(Method, "use_asft_loss", Switch, "false", "ASFT loss.").refused(NOT_YET),
    row(Method, "asft_alpha", Number(0.0, f64::MAX), "0.1", "Its weight.").no_effect("it only matters with use_asft_loss"),
    row(Method, "use_eaft_loss", Switch, "false", "EAFT loss.").refused(NOT_YET),
    row(Method, "eaft_alpha", Number(0.0, f64::MAX), "1.0", "Its weight.").no_effect("it only matters with use_eaft_loss"),
    row(
        Method,
        "neftune_noise_alpha",
        Number(0.0, f64::MAX),
        "",
        "Strength of the noise on the embeddings of training rows (NEFTune); 5 to 15 are usual.",
    )
    .differs_quietly(
        "the noise shrinks with the length of the row",
        "the noise shrinks with the length of the batch, padding included",
        "A row's numbers depend on the row alone.",
    ),
    row(Method, "label_smoothing_factor", Number(0.0, 1.0), "0.0", "Smooths the targets.").refused(NOT_YET),
    row(Method, "pref_beta", Number(0.0, f64::MAX), "0.1", "Strength of a preference loss.").no_effect(PREFERENCE),
    row(Method, "pref_ftx", Number(0.0, f64::MAX), "0.0", "Share of plain training in it.").no_effect(PREFERENCE),
    row(Method, "pref_bco_weight", Number(0.0, f64::MAX), "0.0", "Weight of the BCO loss.").no_effect(PREFERENCE),
    row(Method, "pref_loss", Text, "sigmoid", "Which preference loss.").no_effect(PREFERENCE),
    row(Method, "dpo_label_smoothing", Number(0.0, 0.5), "0.0", "Doubt in preferences.").no_effect(PREFERENCE),
    row(Method, "kto_chosen_weight", Number(0.0, f64::MAX), "1.0", "Weight of good replies.").no_effect(PREFERENCE),
    row(Method, "kto_rejected_weight", Number(0.0, f64::MAX), "1.0", "Weight of bad replies.").no_effect(PREFERENCE),
    row(Method, "simpo_gamma", Number(0.0, f64::MAX), "0.5", "Margin of SimPO.").no_effect(PREFERENCE),
    row(Method, "ld_alpha", Number(0.0, f64::MAX), "", "LD-DPO.").no_effect(PREFERENCE),
    row(Method, "ppo_buffer_size", Whole(1, i64::MAX), "1", "PPO.").no_effect(PREFERENCE),
    row(Method, "ppo_epochs", Whole(1, i64::MAX), "4", "PPO.").no_effect(PREFERENCE),
    row(Method, "ppo_score_norm", Switch, "false", "PPO.").no_effect(PREFERENCE),
    row(Method, "ppo_target", Number(0.0, f64::MAX), "6.0", "PPO.").no_effect(PREFERENCE),
    row(Method, "ppo_whiten_rewards", Switch, "false", "PPO.").no_effect(PREFERENCE),
    row(Method, "ref_model", Text, "", "The model to compare with.").no_effect(PREFERENCE),
    row(Method, "ref_model_adapters", Names, "", "Its adapter.").no_effect(PREFERENCE),
    row(Method, "ref_model_quantization_bit", Anything, "", "Its bits.").no_effect(PREFERENCE),
    row(Method, "reward_model", Text, "", "The model that judges.").no_effect(PREFERENCE),
    row(Method, "reward_model_adapters", Names, "", "Its adapter.").no_effect(PREFERENCE),
    row(Method, "reward_model_quantization_bit", Anything, "", "Its bits.").no_effect(PREFERENCE),
    row(Method, "reward_model_type", Text, "lora", "Its kind.").no_effect(PREFERENCE),
    // LoRA
    row(Lora, "lora_rank", Whole(1, 65_536), "8", "Rank of the update.").only(LORA),
    row(
        Lora,
        "lora_alpha",
        Number(0.0, f64::MAX),
        "",
        "The update is scaled by alpha / rank. Default: twice the rank.",
    )
    .only(LORA),
    row(Lora, "lora_dropout", Number(0.0, 1.0), "0.0", "Share of an adapter's inputs that is dropped.").only(LORA),
    row(Lora, "lora_target", Names, "all", "The linear layers that get an update, by name; all: each but the head.")
        .only(LORA),
    row(Lora, "use_rslora", Switch, "false", "Scale by alpha / sqrt(rank).").only(LORA),
    row(
        Lora,
        "additional_target",
        Names,
        "",
        "Modules trained whole and saved with the adapter, such as norm.",
    )
    .only(ADAPTERS),
    row(Lora, "create_new_adapter", Switch, "false", "Merge the given adapter and begin another.")
        .only(LORA)
        .refused(NOT_YET),
    row(Lora, "loraplus_lr_ratio", Number(0.0, f64::MAX), "", "LoRA+: how much faster B learns than A.").only(LORA),
    row(Lora, "loraplus_lr_embedding", Number(0.0, f64::MAX), "1e-6", "LoRA+: rate of low-rank terms of embeddings.")
        .only(LORA)
        .no_effect("embeddings get no low-rank terms"),
    row(Lora, "use_dora", Switch, "false", "DoRA: the rows of weight and update have a trained magnitude.").only(LORA),
    row(Lora, "pissa_init", Switch, "false", "PiSSA: begin with the largest singular values of the weight.").only(LORA),
    row(Lora, "pissa_iter", Whole(-1, 10_000), "16", "Rounds in which PiSSA finds them; -1: until they are exact.")
        .only("pissa_init: true"),
    row(Lora, "pissa_convert", Switch, "false", "Save PiSSA as plain LoRA of twice the rank.")
        .only(LORA)
        .no_effect("a PiSSA adapter is always saved as plain LoRA of twice the rank, for the base as it was"),
    row(
        Lora,
        "rank_pattern",
        Options,
        "",
        "Other ranks, by ends of paths: q_proj=16,0.mlp.up_proj=4.",
    )
    .only(LORA)
    .ours(),
    row(Lora, "alpha_pattern", Options, "", "Other values of lora_alpha for some layers, as rank_pattern.").only(LORA).ours(),
    row(
        Lora,
        "target_modules",
        Names,
        "",
        "Default: k_proj,v_proj,down_proj; VeRA: q_proj,v_proj.",
    )
    .only("finetuning_type: ia3 or vera")
    .ours(),
    row(Lora, "feedforward_modules", Names, "down_proj", "Those of target_modules whose input IA3 scales.")
        .only("finetuning_type: ia3")
        .ours(),
    row(Lora, "vera_rank", Whole(1, 65_536), "256", "Rank of VeRA's random matrices.").only(VERA).ours(),
    row(Lora, "vera_dropout", Number(0.0, 1.0), "0.0", "Share of VeRA's inputs that is dropped.").only(VERA).ours(),
    row(Lora, "d_initial", Number(0.0, f64::MAX), "0.1", "What VeRA's vector d begins with.").only(VERA).ours(),
    row(Lora, "projection_prng_key", Whole(0, 4_294_967_295), "0", "Seed of the random matrices, as PEFT draws them.")
        .only(VERA)
        .ours(),
    row(Lora, "save_projection", Switch, "true", "Whether the adapter's file holds them.")
        .only(VERA)
        .ours(),
    row(Lora, "oft_rank", Whole(0, 65_536), "0", "OFT: blocks of each layer; then oft_block_size is 0.").only(OFT),
    row(Lora, "oft_block_size", Whole(0, 65_536), "32", "OFT: columns of a block that is rotated.").only(OFT),
    row(Lora, "oft_target", Names, "all", "The linear layers that OFT rotates, by name; all: each but the head.").only(OFT),
    row(Lora, "module_dropout", Number(0.0, 1.0), "0.0", "OFT: share of rotations that are left out.")
        .refused("rotations are not left out yet"),
    // Learned prefixes and prompts, bottleneck adapters
    row(Lora, "num_virtual_tokens", Whole(1, 1_000_000), "20", "Learned positions before every row.").only(PROMPTS),
    row(Lora, "prefix_projection", Switch, "false", "Let a small network make the prefix: PEFT saves what it makes.")
        .only("finetuning_type: prefix"),
    row(
        Lora,
        "encoder_hidden_size",
        Whole(1, 1_000_000),
        "",
        "Width inside the network. Default: that of its input.",
    )
    .only("finetuning_type: prefix or p_tuning"),
    row(Lora, "encoder_reparameterization_type", Choice(&["MLP"], &["LSTM"]), "MLP", "That network.")
        .only("finetuning_type: p_tuning"),
    row(
        Lora,
        "prompt_tuning_init",
        Choice(&["RANDOM", "TEXT", "SAMPLE_VOCAB"], &[]),
        "",
        "What a prompt begins with. Default: TEXT where a text is given, else RANDOM.",
    )
    .only("finetuning_type: prompt"),
    row(Lora, "prompt_tuning_init_text", Text, "", "The text whose tokens a prompt begins with, repeated or cut.")
        .only("finetuning_type: prompt"),
    row(Lora, "bottleneck_size", Whole(1, 1_000_000), "", "Width inside a bottleneck adapter.").only(BOTTLENECK),
    row(
        Lora,
        "reduction_factor",
        Whole(1, 1_000_000),
        "",
        "The model's width by bottleneck_size. Default: 16, without the latter.",
    )
    .only(BOTTLENECK),
    row(
        Lora,
        "placement",
        Choice(&["pfeiffer", "houlsby"], &[]),
        "pfeiffer",
        "Where they stand: after feed-forward, or after attention too.",
    )
    .only(BOTTLENECK),
    row(
        Lora,
        "bottleneck_activation",
        Choice(&["relu", "gelu", "gelu_tanh", "silu", "tanh"], &[]),
        "relu",
        "The function inside them.",
    )
    .only(BOTTLENECK),
    // Data
    row(Data, "dataset", Names, "", "Names of dataset_info.json, files, folders, or patterns such as data/*.jsonl. Required."),
    row(Data, "dataset_dir", Text, "data", "Where datasets and dataset_info.json are."),
    row(Data, "template", Text, "", "How turns become one text. Default: the model's own chat template.")
        .only("stage: sft")
        .differs_quietly(
            "the model's own chat template, rendered as transformers does",
            "its pieces, taken out of it by rendering examples; without one, the template `empty`",
            "What is trained is what transformers, vLLM and Ollama will write in front of the model.",
        ),
    row(Data, "max_samples", Whole(1, i64::MAX), "", "Records that are read of each dataset."),
    row(Data, "train_on_prompt", Switch, "false", "Score prompts too.").only("stage: sft"),
    row(Data, "mask_history", Switch, "false", "Score the last reply only.").only("stage: sft"),
    row(
        Data,
        "role_weights",
        Weights(&["user", "assistant", "system", "tool"]),
        "",
        "Weights of messages in the loss by role, as user=0.1,tool=0; a record's own win.",
    )
    .only("stage: sft"),
    row(Data, "disable_shuffling", Switch, "false", "Keep the order of the records."),
    row(Data, "preprocessing_num_workers", Whole(1, i64::MAX), "", "Processes that prepare data.").no_effect(THREADS),
    row(Data, "preprocessing_batch_size", Whole(1, i64::MAX), "1000", "Records prepared at once.").no_effect(THREADS),
    row(Data, "dataloader_num_workers", Whole(0, i64::MAX), "0", "Processes that load data.").no_effect(THREADS),
    row(Data, "dataloader_pin_memory", Switch, "true", "Pin memory.").no_effect(THREADS),
    row(Data, "dataloader_persistent_workers", Switch, "false", "Keep those processes.").no_effect(THREADS),
    row(Data, "dataloader_prefetch_factor", Whole(1, i64::MAX), "", "Batches loaded ahead.").no_effect(THREADS),
    row(Data, "overwrite_cache", Switch, "false", "Prepare the data again.").no_effect("prepared data is not kept"),
    row(Data, "data_shared_file_system", Switch, "false", "Data on a shared disk.")
        .no_effect("prepared data is not kept"),
    row(Data, "ignore_pad_token_for_loss", Switch, "true", "Do not score padding.").no_effect("there is no padding"),
    row(Data, "remove_unused_columns", Switch, "true", "Drop unused columns.")
        .no_effect("unused columns are never read"),
    row(Data, "buffer_size", Whole(1, i64::MAX), "16384", "Records shuffled at once when streaming.")
        .no_effect("it only matters with streaming"),
    row(Data, "media_dir", Text, "", "Where images are.").refused(TEXT_ONLY),
    row(Data, "streaming", Switch, "false", "Read the data while training.").refused(NOT_YET),
    row(
        Data,
        "mix_strategy",
        Choice(&["concat", "interleave_under", "interleave_over", "interleave_once"], &[]),
        "concat",
        "One after another, or by turns: until one is used up, until all are, or each record once.",
    ),
    row(Data, "interleave_probs", Names, "", "Shares of the datasets that are interleaved, together 1."),
    row(Data, "strict", Switch, "false", "Stop at the first broken record, instead of leaving it out.").ours(),
    row(
        Data,
        "quarantine",
        Text,
        "",
        "Where broken records are kept, with the reasons. Default: quarantine.jsonl in output_dir.",
    )
    .ours(),
    row(
        Data,
        "tool_format",
        Text,
        "",
        "How a named template writes tools, such as llama3 or qwen. Default: its own way.",
    )
    .only("stage: sft"),
    row(Data, "default_system", Text, "", "The system message of records that have none. Default: the template's.")
        .only("stage: sft"),
    row(
        Data,
        "enable_thinking",
        Switch,
        "true",
        "Train thoughts, or give empty ones. A model's own template is told.",
    )
    .only("stage: sft"),
    row(
        Data,
        "preserve_thinking",
        Switch,
        "false",
        "Keep thoughts of earlier replies with mask_history and in chats.",
    )
    .only("stage: sft"),
    row(Data, "tokenized_path", Text, "", "Where prepared data is kept.")
        .refused("prepared data is not kept in files, since preparing it takes seconds; remove the line and give dataset"),
    row(
        Data,
        "train_sampling_strategy",
        Choice(&["random", "sequential", "group_by_length"], &[]),
        "random",
        "Order of the rows; sequential is disable_shuffling.",
    ),
    row(
        Data,
        "group_by_length",
        Switch,
        "false",
        "Put rows of like length together, the longest first. Rows are never padded, so it saves no time.",
    ),
    row(Data, "length_column_name", Text, "length", "Where lengths are.").no_effect("lengths are counted"),
    row(Data, "data_seed", Whole(0, i64::MAX), "", "Seed of the order.").refused("use seed"),
    row(Data, "dataloader_drop_last", Switch, "false", "Leave out an incomplete last batch.").refused(NOT_YET),
    row(Data, "label_names", Names, "", "Columns that are labels.").no_effect("the layout of the records says which they are"),
    row(Data, "sortish_sampler", Switch, "false", "Rows of like length together.")
        .no_effect("transformers does not read it any more either"),
    // Length and batches
    row(
        Batch,
        "cutoff_len",
        Whole(1, i64::MAX),
        "2048",
        "Tokens that a row may have; longer ones are cut and counted.",
    ),
    row(
        Batch,
        "truncation",
        Choice(&["llamafactory", "right", "drop", "error"], &[]),
        "llamafactory",
        "Of longer rows: cut prompt and reply in proportion, cut the end, leave them out, or refuse to start.",
    ),
    row(
        Batch,
        "packing",
        Switch,
        "",
        "Fill rows up to cutoff_len with several records, which never see one another. Default: true for pt.",
    )
    .differs_quietly(
        "records never see one another; rows have cutoff_len tokens; for pt the last row is kept",
        "only with neat_packing; one token fewer; for pt the last row of a thousand records is dropped",
        "A record that sees its neighbour learns from an accident, and nothing is dropped without a word.",
    ),
    row(Batch, "neat_packing", Switch, "false", "The same as packing.").only("stage: sft"),
    row(Batch, "per_device_train_batch_size", WholeOrAuto(1, i64::MAX), "8", "Rows of a batch; auto: as many as three quarters of the free memory hold.")
        .also(&["batch_size"]),
    row(
        Batch,
        "gradient_accumulation_steps",
        Whole(1, i64::MAX),
        "1",
        "Batches of an optimiser step; its loss is the mean over all their trained tokens.",
    ),
    row(Batch, "num_train_epochs", Number(0.0, f64::MAX), "3.0", "How often the data is gone through.")
        .also(&["num_epochs"]),
    row(
        Batch,
        "max_steps",
        Whole(-1, i64::MAX),
        "-1",
        "Optimiser steps; when it is 1 or more it wins over num_train_epochs.",
    ),
    row(
        Batch,
        "token_budget",
        Whole(1, i64::MAX),
        "",
        "Tokens that go through the model at once; only last bits depend on it. Default: what memory allows.",
    )
    .ours(),
    row(Batch, "auto_find_batch_size", Switch, "false", "Halve batches that do not fit.")
        .no_effect("token_budget bounds what goes through the model at once"),
    row(Batch, "average_tokens_across_devices", Switch, "true", "Mean over all devices.")
        .no_effect("the loss is always the mean over all trained tokens of a step"),
    // Optimiser and schedule
    row(
        Optimiser,
        "learning_rate",
        Number(0.0, f64::MAX),
        "",
        "Highest rate. Default: by rule, with the source printed; `luthier lr-find` measures one.",
    )
    .differs_quietly("by rule", "5e-5", "A rate that fits an adapter is too high for all weights, and the other way round."),
    row(
        Optimiser,
        "lr_scheduler_type",
        Choice(SCHEDULES, OTHER_SCHEDULES),
        "linear",
        "How the rate goes after warming up.",
    ),
    row(
        Optimiser,
        "warmup_steps",
        Number(0.0, f64::MAX),
        "0",
        "Steps in which the rate rises; below 1 a share of all steps.",
    ),
    row(Optimiser, "warmup_ratio", Number(0.0, 1.0), "", "The same as a share of all steps; wins over warmup_steps."),
    row(Optimiser, "weight_decay", Number(0.0, f64::MAX), "0.0", "Decay of matrices; norms and biases are left alone."),
    row(Optimiser, "adam_beta1", Number(0.0, 1.0), "0.9", "Memory of the mean gradient."),
    row(Optimiser, "adam_beta2", Number(0.0, 1.0), "0.999", "Memory of the squared gradient."),
    row(Optimiser, "adam_epsilon", Number(1e-30, f64::MAX), "1e-8", "Added to the root of the squared gradient."),
    row(Optimiser, "max_grad_norm", Number(0.0, f64::MAX), "1.0", "Norm that gradients are cut to; 0 leaves them."),
    row(
        Optimiser,
        "optim",
        Choice(OPTIMISERS, OTHER_OPTIMISERS),
        "adamw_torch_fused",
        "How weights are stepped; the first eight names mean AdamW.",
    ),
    row(Optimiser, "optim_args", Options, "", "Numbers of the optimiser, such as momentum=0.9 of sgd."),
    row(
        Optimiser,
        "optim_target_modules",
        Names,
        "",
        "Matrices that galore_adamw and apollo_adamw project: parts of names, or all-linear.",
    ),
    row(
        Optimiser,
        "lr_scheduler_kwargs",
        Options,
        "",
        "Numbers of the schedule, such as num_cycles, power, lr_end, min_lr, min_lr_rate, timescale.",
    ),
    row(Optimiser, "clip_per_tensor", Switch, "false", "Cut each parameter's gradients to max_grad_norm by themselves.")
        .ours(),
    row(
        Optimiser,
        "layerwise_lr_decay",
        Number(1e-6, 1.0),
        "",
        "Factor of the rate from each layer to the one below; the embedding is below the first.",
    )
    .also(&["llrd"])
    .ours(),
    row(
        Optimiser,
        "optimizer_in_bwd",
        Switch,
        "false",
        "Step on the way back; needs max_grad_norm: 0 or clip_per_tensor.",
    )
    .also(&["fused_backward_pass"])
    .ours(),
    row(Optimiser, "use_galore", Switch, "false", "GaLore: moments of gradients projected on their singular vectors."),
    row(Optimiser, "galore_target", Names, "all", "Parts of the names of the matrices that are projected.").only(GALORE),
    row(Optimiser, "galore_rank", Whole(1, i64::MAX), "16", "Vectors of a projection.").only(GALORE),
    row(Optimiser, "galore_update_interval", Whole(1, i64::MAX), "200", "Steps after which they are found anew.").only(GALORE),
    row(Optimiser, "galore_scale", Number(0.0, f64::MAX), "2.0", "Factor of what is projected back.").only(GALORE),
    row(
        Optimiser,
        "galore_proj_type",
        Choice(&["std", "reverse_std", "right", "left"], &["full"]),
        "std",
        "Which side of a matrix is projected.",
    )
    .only(GALORE),
    row(Optimiser, "galore_layerwise", Switch, "false", "The same as optimizer_in_bwd.").only(GALORE),
    row(
        Optimiser,
        "use_apollo",
        Switch,
        "false",
        "APOLLO: gradients scaled by channel as AdamW would scale a projection of them.",
    ),
    row(Optimiser, "apollo_target", Names, "all", "Parts of the names of the matrices that are projected.").only(APOLLO),
    row(Optimiser, "apollo_rank", Whole(1, i64::MAX), "16", "Vectors of a projection.").only(APOLLO),
    row(Optimiser, "apollo_update_interval", Whole(1, i64::MAX), "200", "Steps after which they are drawn anew.").only(APOLLO),
    row(Optimiser, "apollo_scale", Number(0.0, f64::MAX), "32.0", "The square of the factor of a step.").only(APOLLO),
    row(Optimiser, "apollo_proj", Choice(&["random", "svd"], &[]), "random", "What a projection is made of.").only(APOLLO),
    row(Optimiser, "apollo_proj_type", Choice(&["std"], &["right", "left"]), "std", "Which side is projected: the shorter.")
        .only(APOLLO),
    row(
        Optimiser,
        "apollo_scale_type",
        Choice(&["channel", "tensor"], &[]),
        "channel",
        "A factor for each channel, or for each matrix.",
    )
    .only(APOLLO),
    row(Optimiser, "apollo_layerwise", Switch, "false", "The same as optimizer_in_bwd.").only(APOLLO),
    row(Optimiser, "apollo_scale_front", Switch, "false", "Scale before the growth of the norm is limited.").only(APOLLO),
    row(
        Optimiser,
        "use_badam",
        Switch,
        "false",
        "BAdam: AdamW on one layer after another; only that layer has gradients and moments.",
    ),
    row(Optimiser, "badam_mode", Choice(&["layer"], &["ratio"]), "layer", "What is stepped at a time.").only(BADAM),
    row(Optimiser, "badam_start_block", Whole(0, i64::MAX), "", "The layer to begin with.").only(BADAM),
    row(
        Optimiser,
        "badam_switch_mode",
        Choice(&["ascending", "descending", "random", "fixed"], &[]),
        "ascending",
        "Which layer follows.",
    )
    .only(BADAM),
    row(Optimiser, "badam_switch_interval", Whole(-1, i64::MAX), "50", "Steps of a layer; -1: it stays.").only(BADAM),
    row(Optimiser, "badam_update_ratio", Number(0.0, 1.0), "0.05", "Of badam_mode: ratio.")
        .no_effect("it only matters with badam_mode: ratio"),
    row(Optimiser, "badam_mask_mode", Text, "adjacent", "Of badam_mode: ratio.")
        .no_effect("it only matters with badam_mode: ratio"),
    row(Optimiser, "badam_verbose", Whole(0, 2), "0", "How much BAdam prints.").no_effect(PRINTS),
    row(
        Optimiser,
        "use_adam_mini",
        Switch,
        "false",
        "Adam-mini: one mean square for each head or row, instead of one for each number.",
    ),
    row(
        Optimiser,
        "use_muon",
        Switch,
        "false",
        "Muon for matrices within the model, with rates as of AdamW; AdamW for all else.",
    ),
    // Machine
    row(
        Machine,
        "precision",
        Choice(&["auto", "bf16", "fp16", "fp32"], &[]),
        "auto",
        "What is kept and multiplied; auto: bf16 where the processor multiplies it, else fp32.",
    )
    .ours(),
    row(Machine, "bf16", Switch, "", "true is precision: bf16, false is precision: fp32.").differs(
        "as the processor allows",
        "false",
        "precision is auto: bf16 products where the processor has them, with sums and trained weights in fp32; else fp32.",
    ),
    row(
        Machine,
        "threads",
        Whole(1, 4096),
        "",
        "Threads to compute with. Default: one for each core. Results do not depend on it.",
    )
    .ours(),
    row(Machine, "seed", Whole(0, i64::MAX), "42", "Where every random number comes from.").differs_quietly(
        "numbers are counted: each is a function of seed, step, row and place",
        "PyTorch's generators, one number after another",
        "A run does not depend on threads and goes on after an interruption as if there had been none; the order of records and the first weights of adapters are therefore other ones.",
    ),
    row(
        Machine,
        "gradient_checkpointing",
        Choice(&["auto", "on", "off", "selective"], &[]),
        "auto",
        "Compute layers again: auto as memory demands, selective feed-forward networks only; true is on.",
    )
    .alone("on")
    .differs_quietly("as many layers as memory demands", "false, but layers are always computed again", "It takes time and changes no result."),
    row(Machine, "disable_gradient_checkpointing", Switch, "false", "Never compute layers again.").differs_quietly(
        "layers are computed again when memory is short",
        "layers are always computed again",
        "It takes time and changes no result.",
    ),
    row(Machine, "gradient_checkpointing_kwargs", Anything, "", "How layers are computed again.")
        .no_effect("there is one way"),
    row(Machine, "use_reentrant_gc", Switch, "true", "How layers are computed again.").no_effect("there is one way"),
    row(Machine, "use_unsloth_gc", Switch, "false", "How layers are computed again.").no_effect("there is one way"),
    row(Machine, "fp16", Switch, "false", "true is precision: fp16, kept in 16 bits and multiplied in fp32.").differs_quietly(
        "f16 activations and gradients, multiplied in fp32",
        "f16 products of a GPU",
        "Processors multiply bf16 or fp32; what fp16 saves here is memory.",
    ),
    row(Machine, "loss_scale", Number(0.0, f64::MAX), "65536", "Factor of the loss at the beginning.")
        .ours()
        .only("precision: fp16"),
    row(Machine, "loss_scale_growth", Number(1.0, f64::MAX), "2", "Its growth after steps without overflow.")
        .ours()
        .only("precision: fp16"),
    row(Machine, "loss_scale_growth_steps", Whole(1, i64::MAX), "2000", "So many steps without overflow.")
        .ours()
        .only("precision: fp16"),
    row(Machine, "loss_scale_backoff", Number(0.0, 1.0), "0.5", "Its factor after an overflow.")
        .ours()
        .only("precision: fp16"),
    row(Machine, "loss_scale_floor", Number(0.0, f64::MAX), "1", "The least that it falls to.")
        .ours()
        .only("precision: fp16"),
    row(Machine, "pure_bf16", Switch, "false", "Keep trained matrices and AdamW's moments in bf16.").differs_quietly(
        "rounded at random, which loses no update on the average; gradients are fp32",
        "rounded to the nearest, which loses small updates",
        "A step of AdamW is often smaller than the distance of two bf16 numbers.",
    ),
    row(
        Machine,
        "pure_bf16_rounding",
        Choice(&["stochastic", "kahan"], &[]),
        "stochastic",
        "At random, or to the nearest with what is lost kept.",
    )
    .ours()
    .only("pure_bf16: true"),
    row(Machine, "fp8", Switch, "false", "Multiply fp8.").refused(NOT_YET),
    row(Machine, "fp8_backend", Text, "auto", "How.").no_effect("it only matters with fp8"),
    row(Machine, "fp8_enable_fsdp_float8_all_gather", Switch, "false", "Send fp8.").no_effect("it only matters with fp8"),
    row(Machine, "tf32", Switch, "", "Multiply tf32.").no_effect("it is a format of GPUs"),
    row(Machine, "use_cpu", Switch, "false", "Compute on the processor.")
        .no_effect("the processor is the only device yet"),
    row(Machine, "torch_compile", Switch, "false", "Compile the model.").no_effect(FUSED),
    row(Machine, "torch_compile_backend", Text, "", "How.").no_effect(FUSED),
    row(Machine, "torch_compile_mode", Text, "", "How.").no_effect(FUSED),
    row(Machine, "torch_empty_cache_steps", Whole(1, i64::MAX), "", "How often memory is given back.")
        .no_effect("a step allocates nothing that the one before did not"),
    row(Machine, "full_determinism", Switch, "false", "The same numbers every time.")
        .no_effect("numbers are the same on any number of threads, and with the same token_budget every time"),
    row(Machine, "no_cuda", Switch, "false", "Compute on the processor.")
        .no_effect("the processor is the only device yet"),
    row(Machine, "use_ipex", Switch, "false", "Faster kernels.").no_effect(FUSED),
    row(Machine, "half_precision_backend", Text, "auto", "What multiplies.").no_effect("there is one engine"),
    row(Machine, "fp16_opt_level", Text, "O1", "How fp16 is used.").no_effect("it only matters with fp16"),
    // Output
    row(Output, "output_dir", Text, "", "Where the result and trainer_log.jsonl go. Default: saves/MODEL/FINETUNING_TYPE/STAGE.")
        .differs_quietly(
            "`saves/MODEL/FINETUNING_TYPE/STAGE`, said at the start",
            "`trainer_output`",
            "Runs of different models and methods do not meet in one folder; it is how LLaMA-Factory's examples lay it out.",
        ),
    row(Output, "overwrite_output_dir", Switch, "false", "Write over a result that is there."),
    row(
        Output,
        "logging_steps",
        Number(0.0, f64::MAX),
        "500",
        "Steps between lines of the log; below 1 a share of all steps.",
    ),
    row(Output, "logging_first_step", Switch, "false", "Log the first step too."),
    row(Output, "logging_strategy", Choice(&["steps"], &["no", "epoch"]), "steps", "When to log."),
    row(Output, "plot_loss", Switch, "true", "Draw the loss as training_loss.svg and training_loss.png.")
        .differs("", "false", "A chart costs nothing and shows a broken run at a glance."),
    row(Output, "save_steps", Number(0.0, f64::MAX), "100", "Steps between checkpoints; below 1 a share of all steps.")
        .differs("", "500", "A run that is killed loses at most 100 steps."),
    row(
        Output,
        "save_strategy",
        Choice(&["no", "steps", "epoch", "best"], &[]),
        "steps",
        "When to write a checkpoint; best: only where an evaluation was the best so far. Ctrl-C always writes one.",
    ),
    row(
        Output,
        "save_total_limit",
        Whole(1, i64::MAX),
        "",
        "Checkpoints that are kept: the newest, and the best besides. Default: all.",
    ),
    row(Output, "save_only_model", Switch, "false", "Save without the optimiser.")
        .no_effect("checkpoints are always complete, so that they can be continued"),
    row(Output, "save_safetensors", Switch, "true", "Save safetensors.")
        .refused("files that can run code are not written"),
    row(
        Output,
        "resume_from_checkpoint",
        Text,
        "",
        "Go on from a checkpoint: its folder, or true for the newest valid one of output_dir.",
    )
    .alone("true")
    .differs_quietly(
        "only when asked; else an output_dir that holds a run is an error",
        "the newest checkpoint of output_dir, unless overwrite_output_dir",
        "A run that was meant to begin anew must not go on with an old one.",
    ),
    row(Output, "ignore_data_skip", Switch, "false", "Resume with the first record.")
        .refused("a run goes on where it was; begin a new one from the checkpoint's adapter instead"),
    row(
        Output,
        "nonfinite",
        Choice(&["skip", "stop"], &[]),
        "skip",
        "What follows a step whose loss or gradient is not finite: leave the step out, or end the run.",
    )
    .ours(),
    row(Output, "dry_run", Switch, "false", "Show what would be done, with memory and time, and stop.").ours(),
    row(Output, "include_num_input_tokens_seen", Text, "no", "Count tokens.").no_effect("they are always counted"),
    row(Output, "include_effective_tokens_per_second", Switch, "false", "Count trained tokens.")
        .no_effect("they are always counted"),
    row(Output, "log_level", Text, "passive", "How much is printed.").no_effect(PRINTS),
    row(Output, "log_level_replica", Text, "warning", "How much is printed.").no_effect(PRINTS),
    row(Output, "log_on_each_node", Switch, "true", "Who prints.").no_effect(PRINTS),
    row(Output, "disable_tqdm", Switch, "", "No progress bar.")
        .no_effect("there is none when the output is not a terminal"),
    row(Output, "logging_dir", Text, "", "Where TensorBoard's files go. Default: runs in output_dir."),
    row(Output, "logging_nan_inf_filter", Switch, "true", "Leave broken losses out of the log.")
        .no_effect("a loss that is not finite is left out and said"),
    row(Output, "skip_memory_metrics", Switch, "true", "Do not report memory.").no_effect("memory is always reported"),
    row(Output, "debug", Anything, "", "Debugging of PyTorch.").no_effect("there is no PyTorch"),
    row(Output, "enable_torch_profiler", Switch, "false", "Profile PyTorch.")
        .no_effect(NO_PYTORCH),
    row(Output, "enable_jit_checkpoint", Switch, "false", "Save when a cluster ends the job.")
        .no_effect("Ctrl-C and SIGTERM always write a checkpoint"),
    row(Output, "restore_callback_states_from_checkpoint", Switch, "false", "Restore callbacks.")
        .no_effect("a checkpoint is always complete"),
    row(Output, "include_tokens_per_second", Switch, "false", "Count tokens.").no_effect("they are always counted"),
    row(Output, "profiler_output_dir", Text, "", "Where profiles go.").no_effect(NO_PYTORCH),
    row(Output, "profiler_wait_steps", Whole(0, i64::MAX), "1", "Steps without a profile.").no_effect(NO_PYTORCH),
    row(Output, "profiler_warmup_steps", Whole(0, i64::MAX), "1", "Steps before a profile.").no_effect(NO_PYTORCH),
    row(Output, "profiler_active_steps", Whole(1, i64::MAX), "1", "Steps of a profile.").no_effect(NO_PYTORCH),
    row(Output, "profiler_repeat", Whole(0, i64::MAX), "1", "Number of profiles.").no_effect(NO_PYTORCH),
    row(Output, "profiler_record_shapes", Switch, "true", "Profile shapes.").no_effect(NO_PYTORCH),
    row(Output, "profiler_profile_memory", Switch, "true", "Profile memory.").no_effect(NO_PYTORCH),
    row(Output, "profiler_with_stack", Switch, "true", "Profile Python.").no_effect(NO_PYTORCH),
    row(Output, "profile_modules", Names, "", "Modules to profile.").no_effect(NO_PYTORCH),
    // Evaluation
    row(
        Evaluation,
        "val_size",
        Number(0.0, f64::MAX),
        "0.0",
        "Rows set aside for evaluation: a share below 1, or a number of rows.",
    ),
    row(Evaluation, "eval_dataset", Names, "", "Data to evaluate on instead of a part of dataset."),
    row(Evaluation, "do_eval", Switch, "false", "Evaluate.")
        .no_effect("it is evaluated where val_size or eval_dataset says on what"),
    row(Evaluation, "do_predict", Switch, "false", "Predict.").refused(NOT_YET),
    row(Evaluation, "predict_with_generate", Switch, "false", "Predict by generating.").refused(NOT_YET),
    row(
        Evaluation,
        "eval_strategy",
        Choice(&["no", "steps", "epoch"], &[]),
        "",
        "When to evaluate. Default: each epoch where val_size or eval_dataset is given.",
    )
    .also(&["evaluation_strategy"])
    .differs_when(Told::Evaluating, "epoch where there is data", "no", "Who sets data aside wants to see it."),
    row(
        Evaluation,
        "eval_steps",
        Number(0.0, f64::MAX),
        "",
        "Steps between evaluations; below 1 a share of all steps. Default: logging_steps.",
    ),
    row(Evaluation, "eval_on_start", Switch, "false", "Evaluate before the first step too."),
    row(
        Evaluation,
        "load_best_model_at_end",
        Switch,
        "",
        "Save the best evaluated state at the end, not the last. Default: true where it is evaluated.",
    )
    .differs_when(
        Told::Evaluating,
        "true where it is evaluated",
        "false",
        "The last state is often not the best; the best one is known, so it is what is saved.",
    ),
    row(
        Evaluation,
        "metric_for_best_model",
        Choice(&["accuracy", "loss", "eval_accuracy", "eval_loss"], &[]),
        "accuracy",
        "What is best: the highest share of tokens predicted right, or the lowest loss.",
    )
    .differs_when(
        Told::Evaluating,
        "",
        "loss",
        "The loss rises with a model that is sure and right more often; the share of right tokens does not mislead so.",
    ),
    row(Evaluation, "greater_is_better", Switch, "", "Which way the metric points. Default: as it must."),
    row(
        Evaluation,
        "early_stopping_steps",
        Whole(0, i64::MAX),
        "3",
        "Evaluations without a better one after which the run ends; 0: never.",
    )
    .differs_when(Told::Evaluating, "", "never", "What follows three evaluations without a better one is mostly wasted."),
    row(Evaluation, "eval_delay", Number(0.0, f64::MAX), "0", "Steps before the first one.").refused(NOT_YET),
    row(Evaluation, "per_device_eval_batch_size", Whole(1, i64::MAX), "8", "Rows of a batch.")
        .no_effect("token_budget bounds what goes through the model at once, and the figures do not depend on it"),
    row(Evaluation, "eval_accumulation_steps", Whole(1, i64::MAX), "", "Batches kept.").no_effect("no logits are kept"),
    row(Evaluation, "eval_on_each_dataset", Switch, "false", "Evaluate one by one.").refused(NOT_YET),
    row(Evaluation, "eval_num_beams", Whole(1, i64::MAX), "", "Beams of generation.").no_effect(GENERATES),
    row(Evaluation, "compute_accuracy", Switch, "false", "Token accuracy.").no_effect("it is always computed"),
    row(Evaluation, "prediction_loss_only", Switch, "false", "Loss only.")
        .no_effect("loss, perplexity and accuracy come together"),
    row(Evaluation, "bf16_full_eval", Switch, "false", "Evaluate in bf16.").no_effect(SAME_PRECISION),
    row(Evaluation, "fp16_full_eval", Switch, "false", "Evaluate in fp16.").no_effect(SAME_PRECISION),
    row(Evaluation, "generation_max_length", Whole(1, i64::MAX), "", "Length of generation.").no_effect(GENERATES),
    row(Evaluation, "generation_num_beams", Whole(1, i64::MAX), "", "Beams of generation.").no_effect(GENERATES),
    row(Evaluation, "do_sample", Switch, "true", "Sampling of generation.").no_effect(GENERATES),
    row(Evaluation, "temperature", Number(0.0, f64::MAX), "0.95", "Sampling of generation.").no_effect(GENERATES),
    row(Evaluation, "top_p", Number(0.0, 1.0), "0.7", "Sampling of generation.").no_effect(GENERATES),
    row(Evaluation, "top_k", Whole(0, i64::MAX), "50", "Sampling of generation.").no_effect(GENERATES),
    row(Evaluation, "num_beams", Whole(1, i64::MAX), "1", "Beams of generation.").no_effect(GENERATES),
    row(Evaluation, "max_length", Whole(1, i64::MAX), "1024", "Length of generation.").no_effect(GENERATES),
    row(Evaluation, "max_new_tokens", Whole(1, i64::MAX), "1024", "Length of generation.").no_effect(GENERATES),
    row(Evaluation, "repetition_penalty", Number(0.0, f64::MAX), "1.0", "Sampling of generation.").no_effect(GENERATES),
    row(Evaluation, "length_penalty", Number(f64::MIN, f64::MAX), "1.0", "Beams of generation.").no_effect(GENERATES),
    row(Evaluation, "skip_special_tokens", Switch, "true", "Text of generation.").no_effect(GENERATES),
    row(Evaluation, "eval_do_concat_batches", Switch, "true", "Put batches together.").no_effect("no logits are kept"),
    row(Evaluation, "eval_use_gather_object", Switch, "false", "Gather from processes.").no_effect(ONE_PROCESS),
    row(Evaluation, "include_for_metrics", Names, "", "More for metrics.").no_effect("loss, perplexity and accuracy come together"),
    row(Evaluation, "batch_eval_metrics", Switch, "false", "Metrics by batch.").no_effect("no logits are kept"),
    row(Evaluation, "generation_config", Anything, "", "How to generate.").no_effect(GENERATES),
    // Hub, trackers, clusters
    row(
        Hub,
        "report_to",
        Names,
        "none",
        "Which files are written besides: tensorboard. To other trackers nothing is sent, which is said.",
    ),
    row(Hub, "run_name", Text, "", "Name of the run.").no_effect(NO_TRACKER),
    row(Hub, "project", Text, "huggingface", "Name of the project.").no_effect(NO_TRACKER),
    row(Hub, "use_swanlab", Switch, "false", "SwanLab.").no_effect(NO_TRACKER),
    row(Hub, "hf_hub_token", Text, "", "Token of the Hugging Face hub. Default: HF_TOKEN, or what a login has left."),
    row(Hub, "ms_hub_token", Text, "", "Token of a hub.").no_effect(NO_HUB),
    row(Hub, "om_hub_token", Text, "", "Token of a hub.").no_effect(NO_HUB),
    row(Hub, "push_to_hub", Switch, "false", "Send the result to a hub.").refused(NO_HUB),
    row(Hub, "hub_model_id", Text, "", "Its name there.").no_effect(NO_HUB),
    row(Hub, "hub_token", Text, "", "Token of a hub.").no_effect(NO_HUB),
    row(Hub, "hub_private_repo", Switch, "", "Whether others see it.").no_effect(NO_HUB),
    row(Hub, "hub_strategy", Text, "every_save", "When it is sent.").no_effect(NO_HUB),
    row(Hub, "ddp_timeout", Whole(1, i64::MAX), "1800", "Patience of processes.").no_effect(ONE_PROCESS),
    row(Hub, "ddp_find_unused_parameters", Switch, "", "Gradients of processes.").no_effect(ONE_PROCESS),
    row(Hub, "ddp_bucket_cap_mb", Whole(1, i64::MAX), "", "Gradients of processes.").no_effect(ONE_PROCESS),
    row(Hub, "ddp_broadcast_buffers", Switch, "", "Buffers of processes.").no_effect(ONE_PROCESS),
    row(Hub, "ddp_static_graph", Switch, "", "Gradients of processes.").no_effect(ONE_PROCESS),
    row(Hub, "ddp_backend", Text, "", "How processes talk.").no_effect(ONE_PROCESS),
    row(Hub, "local_rank", Whole(-1, i64::MAX), "-1", "Number of a process.").no_effect(ONE_PROCESS),
    row(Hub, "save_on_each_node", Switch, "false", "Who saves.").no_effect(ONE_PROCESS),
    row(Hub, "deepspeed", Anything, "", "DeepSpeed.")
        .no_effect(NO_SHARDS),
    row(Hub, "fsdp", Anything, "", "FSDP.").no_effect(NO_SHARDS),
    row(Hub, "fsdp_config", Anything, "", "FSDP.").no_effect(NO_SHARDS),
    row(Hub, "accelerator_config", Anything, "", "Accelerate.").no_effect(ONE_PROCESS),
    row(Hub, "parallelism_config", Anything, "", "Accelerate.").refused(NO_SPREAD),
    row(Hub, "ray_num_workers", Whole(1, i64::MAX), "1", "Ray.").no_effect(NO_RAY),
    row(Hub, "ray_init_kwargs", Anything, "", "Ray.").no_effect(NO_RAY),
    row(Hub, "master_addr", Text, "", "Ray.").no_effect(NO_RAY),
    row(Hub, "master_port", Text, "", "Ray.").no_effect(NO_RAY),
    row(Hub, "use_mca", Switch, "false", "Megatron.").refused(NO_SPREAD),
    row(Hub, "use_hyper_parallel", Switch, "false", "HyperParallel.").refused(NO_SPREAD),
    row(Hub, "hyper_parallel_args", Text, "", "HyperParallel.").no_effect("it only matters with use_hyper_parallel"),
    row(Hub, "hub_always_push", Switch, "false", "Do not wait for it.").no_effect(NO_HUB),
    row(Hub, "hub_revision", Text, "", "Its branch there.").no_effect(NO_HUB),
    row(Hub, "trackio_space_id", Text, "", "Trackio.").no_effect(NO_TRACKER),
    row(Hub, "trackio_bucket_id", Text, "", "Trackio.").no_effect(NO_TRACKER),
    row(Hub, "trackio_static_space_id", Text, "", "Trackio.").no_effect(NO_TRACKER),
    row(Hub, "swanlab_project", Text, "llamafactory", "SwanLab.").no_effect(NO_TRACKER),
    row(Hub, "swanlab_workspace", Text, "", "SwanLab.").no_effect(NO_TRACKER),
    row(Hub, "swanlab_run_name", Text, "", "SwanLab.").no_effect(NO_TRACKER),
    row(Hub, "swanlab_mode", Text, "cloud", "SwanLab.").no_effect(NO_TRACKER),
    row(Hub, "swanlab_api_key", Text, "", "SwanLab.").no_effect(NO_TRACKER),
    row(Hub, "swanlab_logdir", Text, "", "SwanLab.").no_effect(NO_TRACKER),
    row(Hub, "swanlab_lark_webhook_url", Text, "", "SwanLab.").no_effect(NO_TRACKER),
    row(Hub, "swanlab_lark_secret", Text, "", "SwanLab.").no_effect(NO_TRACKER),
    row(Hub, "fsdp_transformer_layer_cls_to_wrap", Text, "", "FSDP.").no_effect(NO_SHARDS),
    row(Hub, "fsdp_min_num_params", Whole(0, i64::MAX), "0", "FSDP.").no_effect(NO_SHARDS),
    row(Hub, "tensor_model_parallel_size", Whole(1, i64::MAX), "1", "Megatron.").no_effect(NO_SHARDS),
    row(Hub, "pipeline_model_parallel_size", Whole(1, i64::MAX), "1", "Megatron.").no_effect(NO_SHARDS),
    row(Hub, "expert_model_parallel_size", Whole(1, i64::MAX), "1", "Megatron.").no_effect(NO_SHARDS),
    row(Hub, "context_parallel_size", Whole(1, i64::MAX), "1", "Megatron.").no_effect(NO_SHARDS),
    row(Hub, "sequence_parallel", Switch, "false", "Megatron.").no_effect(NO_SHARDS),
    row(Hub, "use_distributed_optimizer", Switch, "false", "Megatron.").no_effect(NO_SHARDS),
    row(Hub, "overlap_param_gather", Switch, "false", "Megatron.").no_effect(NO_SHARDS),
    row(Hub, "overlap_grad_reduce", Switch, "false", "Megatron.").no_effect(NO_SHARDS),
    row(Hub, "moe_token_dispatcher_type", Text, "", "Megatron.").no_effect(NO_SHARDS),
    row(Hub, "moe_grouped_gemm", Switch, "false", "Megatron.").no_effect(FUSED),
    row(Hub, "bias_activation_fusion", Switch, "false", "Megatron.").no_effect(FUSED),
    row(Hub, "apply_rope_fusion", Switch, "false", "Megatron.").no_effect(FUSED),
    row(Hub, "recompute_granularity", Text, "", "Megatron.").no_effect("layers are computed again when memory is short"),
];

const LORA: &str = "finetuning_type: lora";
const PROMPTS: &str = "finetuning_type: prefix, prompt or p_tuning";
const BOTTLENECK: &str = "finetuning_type: bottleneck";
const FREEZE: &str = "finetuning_type: freeze";
const VERA: &str = "finetuning_type: vera";
const OFT: &str = "finetuning_type: oft";
/// The methods that make an adapter.
const ADAPTERS: &str = "finetuning_type: lora, ia3, vera or oft";
const QUANTISED: &str = "quantization_bit: 4";
const BEYOND_BITSANDBYTES: &[&str] = &["gptq", "awq", "aqlm", "quanto", "eetq", "hqq", "mxfp4", "fp8"];
const NOT_YET: &str = "Luthier does not have it yet, and without it the result would differ";
const PREFERENCE: &str = "stage sft and pt do not use it";
const TEXT_ONLY: &str = "models and records are text only";
const NO_CODE: &str = "no file that is read can make Luthier run code";
const FUSED: &str = "operations are always fused";
const THREADS: &str = "data is prepared by the threads that train";
const PRINTS: &str = "warnings and progress are always printed";
const SAME_PRECISION: &str = "evaluation computes as training does";
const GENERATES: &str = "training generates nothing; see `luthier generate`";
const NO_HUB: &str = "nothing is sent to a hub";
const ONE_PROCESS: &str = "training runs in one process";
const NO_SHARDS: &str =
    "training runs in one process, which has nothing to shard; optimisers named in there are not read";
const NO_RAY: &str = "Ray is not used; a batch is that of one process";
const NO_TRACKER: &str = "nothing is sent to a tracker; trainer_log.jsonl has the numbers";
const NO_PYTORCH: &str = "there is no PyTorch; see `luthier bench`";
const NO_KT: &str = "it only matters with use_kt";
const NO_EXPORT: &str = "training exports nothing";
const NO_SPREAD: &str = "training runs in one process on one machine";
const GALORE: &str = "use_galore: true";
const APOLLO: &str = "use_apollo: true";
const BADAM: &str = "use_badam: true";
const SCHEDULES: &[&str] = &[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
];
const OTHER_SCHEDULES: &[&str] = &["reduce_lr_on_plateau", "greedy"];
const OPTIMISERS: &[&str] = &[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_torch_xla",
    "adamw_torch_npu_fused",
    "adamw_apex_fused",
    "adamw_hf",
    "paged_adamw",
    "paged_adamw_32bit",
    "adamw_8bit",
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "adafactor",
    "lion_32bit",
    "paged_lion_32bit",
    "sgd",
    "galore_adamw",
    "galore_adamw_layerwise",
    "apollo_adamw",
    "apollo_adamw_layerwise",
    "schedule_free_adamw",
];
const OTHER_OPTIMISERS: &[&str] = &[
    "adamw_anyprecision",
    "adamw_torch_4bit",
    "adamw_torch_8bit",
    "ademamix",
    "adagrad",
    "ademamix_8bit",
    "lion_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "paged_lion_8bit",
    "rmsprop",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "galore_adamw_8bit",
    "galore_adafactor",
    "galore_adamw_8bit_layerwise",
    "galore_adafactor_layerwise",
    "lomo",
    "adalomo",
    "grokadamw",
    "schedule_free_radam",
    "schedule_free_sgd",
    "stable_adamw",
];

const fn row(group: Group, name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Setting {
    Setting {
        name,
        aliases: &[],
        kind,
        default,
        alone: "",
        group,
        applies_to: "",
        status: Status::Honoured,
        help,
        ours: false,
        differs: None,
    }
}

impl Setting {
    const fn also(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn alone(mut self, value: &'static str) -> Self {
        self.alone = value;
        self
    }

    const fn only(mut self, applies_to: &'static str) -> Self {
        self.applies_to = applies_to;
        self
    }

    const fn no_effect(mut self, reason: &'static str) -> Self {
        self.status = Status::NoEffect(reason);
        self
    }

    const fn refused(mut self, reason: &'static str) -> Self {
        self.status = Status::Refused(reason);
        self
    }

    const fn ours(mut self) -> Self {
        self.ours = true;
        self
    }

    /// Differs from LLaMA-Factory, which a run says where it was not chosen.
    const fn differs(self, here: &'static str, there: &'static str, why: &'static str) -> Self {
        self.differs_when(Told::Always, here, there, why)
    }

    /// Differs from LLaMA-Factory, which only the page says.
    const fn differs_quietly(self, here: &'static str, there: &'static str, why: &'static str) -> Self {
        self.differs_when(Told::OnThePage, here, there, why)
    }

    const fn differs_when(mut self, told: Told, here: &'static str, there: &'static str, why: &'static str) -> Self {
        self.differs = Some(Difference { here, there, why, told });
        self
    }
}
