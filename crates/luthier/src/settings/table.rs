//! The table of all settings: one row each. A setting is added here and in [`crate::config`], nowhere else.

use super::{Group, Kind, Setting, Status};
use Group::{Batch, Data, Evaluation, Hub, Lora, Machine, Method, Model, Optimiser, Output};
use Kind::{Anything, Choice, Names, Number, Switch, Text, Whole};

/// Every key that Luthier knows, in the order of the reference page.
pub(crate) const SETTINGS: &[Setting] = &[
    // Model
    row(
        Model,
        "model_name_or_path",
        Text,
        "",
        "The base model: a Hugging Face folder, a GGUF file, or builtin. Required.",
    ),
    row(Model, "adapter_name_or_path", Names, "", "A PEFT adapter folder to go on training.")
        .only("finetuning_type: lora"),
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
    row(Model, "quantization_bit", Whole(2, 8), "", "Bits of the frozen weights.")
        .refused("weights are not quantised while loading yet; a GGUF file is trained as it is"),
    row(Model, "quantization_method", Anything, "bnb", "How they are quantised.")
        .refused("weights are not quantised while loading yet"),
    row(Model, "quantization_type", Anything, "nf4", "What they are quantised to.")
        .refused("weights are not quantised while loading yet"),
    row(Model, "quantization_device_map", Anything, "", "Where quantised weights lie.").refused(NO_SPREAD),
    row(Model, "double_quantization", Switch, "true", "Quantise the scales too.")
        .no_effect("it only matters with quantization_bit"),
    row(Model, "adapter_folder", Text, "", "Folder that adapters are in.")
        .refused("give the whole path in adapter_name_or_path"),
    row(Model, "cache_dir", Text, "", "Where downloads go.").refused("models are not downloaded yet"),
    row(Model, "model_revision", Text, "main", "Version of a model on a hub.").refused("models are not downloaded yet"),
    row(Model, "resize_vocab", Switch, "false", "Fit the embedding to the tokenizer.")
        .refused("the vocabulary is not changed yet"),
    row(Model, "add_tokens", Names, "", "Words added to the tokenizer.").refused("the vocabulary is not changed yet"),
    row(Model, "add_special_tokens", Names, "", "Special words added to it.")
        .refused("the vocabulary is not changed yet"),
    row(Model, "new_special_tokens_config", Text, "", "A file of special words.")
        .refused("the vocabulary is not changed yet"),
    row(Model, "init_special_tokens", Text, "noise_init", "How their vectors begin.")
        .refused("the vocabulary is not changed yet"),
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
        "Begin with weights drawn from seed; of model_name_or_path only config.json and the tokenizer are read.",
    )
    .only("finetuning_type: full"),
    row(Model, "upcast_layernorm", Switch, "false", "Keep the norms in fp32.").no_effect("norms are computed in fp32"),
    row(Model, "upcast_lmhead_output", Switch, "false", "Keep the logits in fp32.")
        .no_effect("logits are computed in fp32"),
    row(Model, "use_kt", Switch, "false", "Train with KTransformers.").refused("it is another program"),
    row(Model, "image_max_pixels", Anything, "589824", "Size of images.").refused(TEXT_ONLY),
    row(Model, "image_min_pixels", Anything, "1024", "Size of images.").refused(TEXT_ONLY),
    row(Model, "video_max_pixels", Anything, "65536", "Size of videos.").refused(TEXT_ONLY),
    row(Model, "video_min_pixels", Anything, "256", "Size of videos.").refused(TEXT_ONLY),
    row(Model, "video_fps", Anything, "2.0", "Frames of videos.").refused(TEXT_ONLY),
    row(Model, "video_maxlen", Anything, "128", "Frames of videos.").refused(TEXT_ONLY),
    row(Model, "use_audio_in_video", Switch, "false", "Sound of videos.").refused(TEXT_ONLY),
    row(Model, "audio_sampling_rate", Anything, "16000", "Rate of sound.").refused(TEXT_ONLY),
    row(Model, "freeze_vision_tower", Switch, "true", "Leave the image encoder as it is.").refused(TEXT_ONLY),
    row(Model, "freeze_multi_modal_projector", Switch, "true", "Leave the projector as it is.").refused(TEXT_ONLY),
    row(Model, "freeze_language_model", Switch, "false", "Leave the language model as it is.").refused(TEXT_ONLY),
    // Method
    row(
        Method,
        "stage",
        Choice(&["sft", "pt"], &["rm", "ppo", "dpo", "kto"]),
        "sft",
        "sft trains replies to prompts, pt trains on plain text.",
    ),
    row(Method, "do_train", Switch, "true", "Train.").refused("`luthier train` trains; remove the line"),
    row(
        Method,
        "finetuning_type",
        Choice(&["lora", "full", "freeze"], &["oft"]),
        "lora",
        "What is trained: an adapter, everything, or some layers.",
    ),
    row(
        Method,
        "freeze_trainable_layers",
        Whole(-1_000_000, 1_000_000),
        "2",
        "How many layers are trained: the last n, or the first n when negative.",
    )
    .only("finetuning_type: freeze"),
    row(Method, "freeze_trainable_modules", Names, "all", "Which modules of those layers.")
        .only("finetuning_type: freeze")
        .refused(NOT_YET),
    row(Method, "freeze_extra_modules", Names, "", "Modules outside the layers that are trained too.")
        .only("finetuning_type: freeze")
        .refused(NOT_YET),
    row(Method, "use_llama_pro", Switch, "false", "Train added layers only.").refused(NOT_YET),
    row(Method, "use_dft_loss", Switch, "false", "DFT loss.").refused(NOT_YET),
    row(Method, "use_asft_loss", Switch, "false", "ASFT loss.").refused(NOT_YET),
    row(Method, "asft_alpha", Number(0.0, f64::MAX), "0.1", "Its weight.").refused(NOT_YET),
    row(Method, "use_eaft_loss", Switch, "false", "EAFT loss.").refused(NOT_YET),
    row(Method, "eaft_alpha", Number(0.0, f64::MAX), "1.0", "Its weight.").refused(NOT_YET),
    row(Method, "neftune_noise_alpha", Number(0.0, f64::MAX), "", "Noise on the embeddings.").refused(NOT_YET),
    row(Method, "label_smoothing_factor", Number(0.0, 1.0), "0.0", "Smooths the targets.").refused(NOT_YET),
    row(Method, "pref_beta", Number(0.0, f64::MAX), "0.1", "Strength of a preference loss.").refused(PREFERENCE),
    row(Method, "pref_ftx", Number(0.0, f64::MAX), "0.0", "Share of plain training in it.").refused(PREFERENCE),
    row(Method, "pref_bco_weight", Number(0.0, f64::MAX), "0.0", "Weight of the BCO loss.").refused(PREFERENCE),
    row(Method, "pref_loss", Text, "sigmoid", "Which preference loss.").refused(PREFERENCE),
    row(Method, "dpo_label_smoothing", Number(0.0, 0.5), "0.0", "Doubt in preferences.").refused(PREFERENCE),
    row(Method, "kto_chosen_weight", Number(0.0, f64::MAX), "1.0", "Weight of good replies.").refused(PREFERENCE),
    row(Method, "kto_rejected_weight", Number(0.0, f64::MAX), "1.0", "Weight of bad replies.").refused(PREFERENCE),
    row(Method, "simpo_gamma", Number(0.0, f64::MAX), "0.5", "Margin of SimPO.").refused(PREFERENCE),
    row(Method, "ld_alpha", Number(0.0, f64::MAX), "", "LD-DPO.").refused(PREFERENCE),
    row(Method, "ppo_buffer_size", Whole(1, i64::MAX), "1", "PPO.").refused(PREFERENCE),
    row(Method, "ppo_epochs", Whole(1, i64::MAX), "4", "PPO.").refused(PREFERENCE),
    row(Method, "ppo_score_norm", Switch, "false", "PPO.").refused(PREFERENCE),
    row(Method, "ppo_target", Number(0.0, f64::MAX), "6.0", "PPO.").refused(PREFERENCE),
    row(Method, "ppo_whiten_rewards", Switch, "false", "PPO.").refused(PREFERENCE),
    row(Method, "ref_model", Text, "", "The model to compare with.").refused(PREFERENCE),
    row(Method, "ref_model_adapters", Names, "", "Its adapter.").refused(PREFERENCE),
    row(Method, "ref_model_quantization_bit", Anything, "", "Its bits.").refused(PREFERENCE),
    row(Method, "reward_model", Text, "", "The model that judges.").refused(PREFERENCE),
    row(Method, "reward_model_adapters", Names, "", "Its adapter.").refused(PREFERENCE),
    row(Method, "reward_model_quantization_bit", Anything, "", "Its bits.").refused(PREFERENCE),
    row(Method, "reward_model_type", Text, "lora", "Its kind.").refused(PREFERENCE),
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
        "Modules that are trained whole and saved with the adapter, such as embed_tokens.",
    )
    .only(LORA),
    row(Lora, "create_new_adapter", Switch, "false", "Merge the given adapter and begin another.")
        .only(LORA)
        .refused(NOT_YET),
    row(Lora, "loraplus_lr_ratio", Number(0.0, f64::MAX), "", "LoRA+: how much faster B learns.")
        .only(LORA)
        .refused(NOT_YET),
    row(Lora, "loraplus_lr_embedding", Number(0.0, f64::MAX), "1e-6", "LoRA+: rate of embeddings.")
        .only(LORA)
        .refused(NOT_YET),
    row(Lora, "use_dora", Switch, "false", "DoRA.").only(LORA).refused(NOT_YET),
    row(Lora, "pissa_init", Switch, "false", "PiSSA.").only(LORA).refused(NOT_YET),
    row(Lora, "pissa_iter", Whole(-1, i64::MAX), "16", "PiSSA's rounds.").only(LORA).refused(NOT_YET),
    row(Lora, "pissa_convert", Switch, "false", "Save PiSSA as LoRA.").only(LORA).refused(NOT_YET),
    row(Lora, "oft_rank", Whole(0, i64::MAX), "0", "OFT.").refused(NOT_YET),
    row(Lora, "oft_block_size", Whole(0, i64::MAX), "32", "OFT.").refused(NOT_YET),
    row(Lora, "oft_target", Names, "all", "OFT.").refused(NOT_YET),
    row(Lora, "module_dropout", Number(0.0, 1.0), "0.0", "OFT.").refused(NOT_YET),
    // Data
    row(Data, "dataset", Names, "", "Files, or names of dataset_dir. Required."),
    row(Data, "dataset_dir", Text, "data", "Where datasets and dataset_info.json are."),
    row(Data, "template", Text, "", "How turns become one text. Default: the model's own chat template.")
        .only("stage: sft"),
    row(Data, "max_samples", Whole(1, i64::MAX), "", "Records that are read of each dataset."),
    row(Data, "train_on_prompt", Switch, "false", "Score prompts too.").only("stage: sft"),
    row(Data, "mask_history", Switch, "false", "Score the last reply only.").only("stage: sft"),
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
    row(Data, "mix_strategy", Text, "concat", "How datasets are mixed.").refused(NOT_YET),
    row(Data, "interleave_probs", Names, "", "Shares of the datasets.").refused(NOT_YET),
    row(Data, "tool_format", Text, "", "How tools are written.").refused(NOT_YET),
    row(Data, "default_system", Text, "", "A system message for every record.").refused(NOT_YET),
    row(Data, "enable_thinking", Switch, "true", "Reasoning templates.").refused(NOT_YET),
    row(Data, "preserve_thinking", Switch, "false", "Reasoning templates.").refused(NOT_YET),
    row(Data, "tokenized_path", Text, "", "Where prepared data is kept.").refused(NOT_YET),
    row(Data, "train_sampling_strategy", Text, "random", "Order of the records.").refused(NOT_YET),
    row(Data, "group_by_length", Switch, "false", "Records of one length together.")
        .refused("rows are never padded, so it would only change their order"),
    row(Data, "length_column_name", Text, "length", "Where lengths are.").no_effect("lengths are counted"),
    row(Data, "data_seed", Whole(0, i64::MAX), "", "Seed of the order.").refused("use seed"),
    row(Data, "dataloader_drop_last", Switch, "false", "Leave out an incomplete last batch.").refused(NOT_YET),
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
        "packing",
        Switch,
        "",
        "Fill rows up to cutoff_len with several records, which never see one another. Default: true for pt.",
    ),
    row(Batch, "neat_packing", Switch, "false", "The same as packing."),
    row(Batch, "per_device_train_batch_size", Whole(1, i64::MAX), "8", "Rows of a batch.").also(&["batch_size"]),
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
        "Tokens that go through the model at once; results do not change. Default: what memory allows.",
    )
    .ours(),
    row(Batch, "auto_find_batch_size", Switch, "false", "Halve batches that do not fit.")
        .no_effect("token_budget bounds what goes through the model at once"),
    row(Batch, "average_tokens_across_devices", Switch, "true", "Mean over all devices.")
        .no_effect("the loss is always the mean over all trained tokens of a step"),
    // Optimiser and schedule
    row(Optimiser, "learning_rate", Number(0.0, f64::MAX), "5e-5", "Highest rate."),
    row(
        Optimiser,
        "lr_scheduler_type",
        Choice(&["linear", "cosine", "constant", "constant_with_warmup"], OTHER_SCHEDULES),
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
    row(Optimiser, "weight_decay", Number(0.0, f64::MAX), "0.0", "AdamW's decay of matrices; vectors are not decayed."),
    row(Optimiser, "adam_beta1", Number(0.0, 1.0), "0.9", "Memory of the mean gradient."),
    row(Optimiser, "adam_beta2", Number(0.0, 1.0), "0.999", "Memory of the squared gradient."),
    row(Optimiser, "adam_epsilon", Number(1e-30, f64::MAX), "1e-8", "Added to the root of the squared gradient."),
    row(Optimiser, "max_grad_norm", Number(0.0, f64::MAX), "1.0", "Norm that gradients are cut to; 0 leaves them."),
    row(
        Optimiser,
        "optim",
        Choice(&["adamw_torch", "adamw_torch_fused"], OTHER_OPTIMISERS),
        "adamw_torch_fused",
        "Both names mean AdamW.",
    ),
    row(Optimiser, "optim_args", Text, "", "More for the optimiser.").refused(NOT_YET),
    row(Optimiser, "optim_target_modules", Anything, "", "Modules of GaLore and others.").refused(NOT_YET),
    row(Optimiser, "lr_scheduler_kwargs", Anything, "", "More for the schedule.").refused(NOT_YET),
    row(Optimiser, "use_galore", Switch, "false", "GaLore.").refused(NOT_YET),
    row(Optimiser, "galore_target", Names, "all", "GaLore.").refused(NOT_YET),
    row(Optimiser, "galore_rank", Whole(1, i64::MAX), "16", "GaLore.").refused(NOT_YET),
    row(Optimiser, "galore_update_interval", Whole(1, i64::MAX), "200", "GaLore.").refused(NOT_YET),
    row(Optimiser, "galore_scale", Number(0.0, f64::MAX), "2.0", "GaLore.").refused(NOT_YET),
    row(Optimiser, "galore_proj_type", Text, "std", "GaLore.").refused(NOT_YET),
    row(Optimiser, "galore_layerwise", Switch, "false", "GaLore.").refused(NOT_YET),
    row(Optimiser, "use_apollo", Switch, "false", "APOLLO.").refused(NOT_YET),
    row(Optimiser, "apollo_target", Names, "all", "APOLLO.").refused(NOT_YET),
    row(Optimiser, "apollo_rank", Whole(1, i64::MAX), "16", "APOLLO.").refused(NOT_YET),
    row(Optimiser, "apollo_update_interval", Whole(1, i64::MAX), "200", "APOLLO.").refused(NOT_YET),
    row(Optimiser, "apollo_scale", Number(0.0, f64::MAX), "32.0", "APOLLO.").refused(NOT_YET),
    row(Optimiser, "apollo_proj", Text, "random", "APOLLO.").refused(NOT_YET),
    row(Optimiser, "apollo_proj_type", Text, "std", "APOLLO.").refused(NOT_YET),
    row(Optimiser, "apollo_scale_type", Text, "channel", "APOLLO.").refused(NOT_YET),
    row(Optimiser, "apollo_layerwise", Switch, "false", "APOLLO.").refused(NOT_YET),
    row(Optimiser, "apollo_scale_front", Switch, "false", "APOLLO.").refused(NOT_YET),
    row(Optimiser, "use_badam", Switch, "false", "BAdam.").refused(NOT_YET),
    row(Optimiser, "badam_mode", Text, "layer", "BAdam.").refused(NOT_YET),
    row(Optimiser, "badam_start_block", Whole(0, i64::MAX), "", "BAdam.").refused(NOT_YET),
    row(Optimiser, "badam_switch_mode", Text, "ascending", "BAdam.").refused(NOT_YET),
    row(Optimiser, "badam_switch_interval", Whole(-1, i64::MAX), "50", "BAdam.").refused(NOT_YET),
    row(Optimiser, "badam_update_ratio", Number(0.0, 1.0), "0.05", "BAdam.").refused(NOT_YET),
    row(Optimiser, "badam_mask_mode", Text, "adjacent", "BAdam.").refused(NOT_YET),
    row(Optimiser, "badam_verbose", Whole(0, 2), "0", "BAdam.").refused(NOT_YET),
    row(Optimiser, "use_adam_mini", Switch, "false", "Adam-mini.").refused(NOT_YET),
    row(Optimiser, "use_muon", Switch, "false", "Muon.").refused(NOT_YET),
    // Machine
    row(
        Machine,
        "precision",
        Choice(&["auto", "bf16", "fp32"], &[]),
        "auto",
        "What is multiplied; auto: bf16 where the processor multiplies it, else fp32.",
    )
    .ours(),
    row(Machine, "bf16", Switch, "", "true is precision: bf16, false is precision: fp32."),
    row(
        Machine,
        "threads",
        Whole(1, 4096),
        "",
        "Threads to compute with. Default: one for each core. Results do not depend on it.",
    )
    .ours(),
    row(Machine, "seed", Whole(0, i64::MAX), "42", "Where every random number comes from."),
    row(
        Machine,
        "gradient_checkpointing",
        Switch,
        "",
        "Compute layers again instead of keeping them. Default: when memory is short.",
    ),
    row(Machine, "disable_gradient_checkpointing", Switch, "false", "Never compute layers again."),
    row(Machine, "gradient_checkpointing_kwargs", Anything, "", "How layers are computed again.")
        .no_effect("there is one way"),
    row(Machine, "use_reentrant_gc", Switch, "true", "How layers are computed again.").no_effect("there is one way"),
    row(Machine, "use_unsloth_gc", Switch, "false", "How layers are computed again.").no_effect("there is one way"),
    row(Machine, "fp16", Switch, "false", "Multiply fp16.")
        .refused("fp16 needs a loss scale and is not there yet; use precision: auto"),
    row(Machine, "pure_bf16", Switch, "false", "Keep trained weights in bf16.")
        .refused("trained weights are kept in fp32, since bf16 loses small updates; use bf16: true"),
    row(Machine, "fp8", Switch, "false", "Multiply fp8.").refused(NOT_YET),
    row(Machine, "fp8_backend", Text, "auto", "How.").no_effect("it only matters with fp8"),
    row(Machine, "fp8_enable_fsdp_float8_all_gather", Switch, "false", "Send fp8.").refused(NOT_YET),
    row(Machine, "tf32", Switch, "", "Multiply tf32.").no_effect("it is a format of GPUs"),
    row(Machine, "use_cpu", Switch, "false", "Compute on the processor.")
        .no_effect("the processor is the only device yet"),
    row(Machine, "torch_compile", Switch, "false", "Compile the model.").no_effect(FUSED),
    row(Machine, "torch_compile_backend", Text, "", "How.").no_effect(FUSED),
    row(Machine, "torch_compile_mode", Text, "", "How.").no_effect(FUSED),
    row(Machine, "torch_empty_cache_steps", Whole(1, i64::MAX), "", "How often memory is given back.")
        .no_effect("a step allocates nothing that the one before did not"),
    row(Machine, "full_determinism", Switch, "false", "The same numbers every time.")
        .no_effect("numbers are always the same"),
    // Output
    row(Output, "output_dir", Text, "", "Where the result and trainer_log.jsonl go. Required."),
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
    row(Output, "plot_loss", Switch, "true", "Draw the loss as training_loss.svg and training_loss.png."),
    row(Output, "save_steps", Number(0.0, f64::MAX), "100", "Steps between checkpoints; below 1 a share of all steps."),
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
        .refused("a checkpoint without the optimiser cannot be continued; checkpoints are always complete"),
    row(Output, "save_safetensors", Switch, "true", "Save safetensors.")
        .refused("files that can run code are not written"),
    row(
        Output,
        "resume_from_checkpoint",
        Text,
        "",
        "Go on from a checkpoint: its folder, or true for the newest valid one of output_dir.",
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
        .no_effect("there is no PyTorch; see `luthier bench`"),
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
    ),
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
    ),
    row(
        Evaluation,
        "metric_for_best_model",
        Choice(&["accuracy", "loss", "eval_accuracy", "eval_loss"], &[]),
        "accuracy",
        "What is best: the highest share of tokens predicted right, or the lowest loss.",
    ),
    row(Evaluation, "greater_is_better", Switch, "", "Which way the metric points. Default: as it must."),
    row(
        Evaluation,
        "early_stopping_steps",
        Whole(0, i64::MAX),
        "3",
        "Evaluations without a better one after which the run ends; 0: never.",
    ),
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
    // Hub, trackers, clusters
    row(
        Hub,
        "report_to",
        Choice(&["none", "tensorboard"], OTHER_TRACKERS),
        "none",
        "Which files are written besides: TensorBoard's.",
    ),
    row(Hub, "run_name", Text, "", "Name of the run.").no_effect("nothing is sent to a tracker"),
    row(Hub, "project", Text, "huggingface", "Name of the project.").no_effect("nothing is sent to a tracker"),
    row(Hub, "use_swanlab", Switch, "false", "SwanLab.").refused("nothing is sent to a tracker"),
    row(Hub, "hf_hub_token", Text, "", "Token of a hub.").no_effect(NO_HUB),
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
        .no_effect("training runs in one process, which has nothing to shard"),
    row(Hub, "fsdp", Anything, "", "FSDP.").refused(NO_SPREAD),
    row(Hub, "fsdp_config", Anything, "", "FSDP.").refused(NO_SPREAD),
    row(Hub, "accelerator_config", Anything, "", "Accelerate.").refused(NO_SPREAD),
    row(Hub, "parallelism_config", Anything, "", "Accelerate.").refused(NO_SPREAD),
    row(Hub, "ray_num_workers", Whole(1, i64::MAX), "1", "Ray.").refused(NO_SPREAD),
    row(Hub, "ray_init_kwargs", Anything, "", "Ray.").refused(NO_SPREAD),
    row(Hub, "master_addr", Text, "", "Ray.").refused(NO_SPREAD),
    row(Hub, "master_port", Text, "", "Ray.").refused(NO_SPREAD),
    row(Hub, "use_mca", Switch, "false", "Megatron.").refused(NO_SPREAD),
    row(Hub, "use_hyper_parallel", Switch, "false", "HyperParallel.").refused(NO_SPREAD),
    row(Hub, "hyper_parallel_args", Text, "", "HyperParallel.").refused(NO_SPREAD),
];

const LORA: &str = "finetuning_type: lora";
const NOT_YET: &str = "Luthier does not have it yet, and without it the result would differ";
const PREFERENCE: &str = "only stage sft and pt are there yet, and they do not use it";
const TEXT_ONLY: &str = "models are trained on text only";
const NO_CODE: &str = "no file that is read can make Luthier run code";
const FUSED: &str = "operations are always fused";
const THREADS: &str = "data is prepared by the threads that train";
const PRINTS: &str = "warnings and progress are always printed";
const SAME_PRECISION: &str = "evaluation computes as training does";
const GENERATES: &str = "training generates nothing; see `luthier generate`";
const NO_HUB: &str = "Luthier does not talk to a hub yet";
const ONE_PROCESS: &str = "training runs in one process";
const NO_SPREAD: &str = "training runs in one process on one machine";
const OTHER_SCHEDULES: &[&str] = &[
    "cosine_with_restarts",
    "polynomial",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
];
const OTHER_OPTIMISERS: &[&str] = &[
    "adamw_torch_xla",
    "adamw_torch_npu_fused",
    "adamw_apex_fused",
    "adafactor",
    "adamw_anyprecision",
    "adamw_torch_4bit",
    "adamw_torch_8bit",
    "ademamix",
    "sgd",
    "adagrad",
    "adamw_bnb_8bit",
    "adamw_8bit",
    "ademamix_8bit",
    "lion_8bit",
    "lion_32bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "rmsprop",
    "galore_adamw",
    "lomo",
    "adalomo",
    "grokadamw",
    "schedule_free_radam",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "apollo_adamw",
];
const OTHER_TRACKERS: &[&str] = &["all", "wandb", "swanlab", "mlflow", "trackio", "comet_ml", "clearml"];

const fn row(group: Group, name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Setting {
    Setting { name, aliases: &[], kind, default, group, applies_to: "", status: Status::Honoured, help, ours: false }
}

impl Setting {
    const fn also(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
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
}
