"""Keys that a ``config.json`` of the supported encoders may have. Unknown keys are refused, not ignored.

A key that a library understands and we do not is how configurations turned into code before (CVE-2026-4372,
CVE-2026-5241); a list of what is allowed does not need to know the next one.
"""

_IDENTITY = "architectures model_type transformers_version dtype torch_dtype language name model_max_length"

_SHAPE = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings "
    "type_vocab_size dim n_heads n_layers hidden_dim position_embedding_type sinusoidal_pos_embds num_labels "
    "embedding_size emb_size"
)

_ARITHMETIC = (
    "hidden_act activation layer_norm_eps hidden_dropout_prob attention_probs_dropout_prob classifier_dropout "
    "dropout attention_dropout qa_dropout seq_classif_dropout initializer_range chunk_size_feed_forward "
    "attn_implementation"
)

_TASK = "id2label label2id problem_type finetuning_task task_specific_params sentence_transformers"

_TOKENS = (
    "pad_token_id bos_token_id eos_token_id sep_token_id cls_token_id mask_token_id unk_token_id "
    "decoder_start_token_id forced_bos_token_id forced_eos_token_id tokenizer_class do_lower_case prefix"
)

_SWITCHES = (
    "is_decoder is_encoder_decoder add_cross_attention cross_attention_hidden_size tie_word_embeddings "
    "tie_encoder_decoder tie_weights_ use_cache gradient_checkpointing output_attentions output_hidden_states "
    "output_past return_dict torchscript use_bfloat16 tf_legacy_loss xla_device pruned_heads directionality cell "
    "pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type "
    "summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj"
)

_GENERATION = (
    "max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k "
    "top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size "
    "bad_words_ids num_return_sequences output_scores return_dict_in_generate remove_invalid_values "
    "exponential_decay_length_penalty suppress_tokens begin_suppress_tokens"
)

KNOWN_KEYS = frozenset(f"{_IDENTITY} {_SHAPE} {_ARITHMETIC} {_TASK} {_TOKENS} {_SWITCHES} {_GENERATION}".split())

_CODE = (
    "auto_map trust_remote_code custom_pipelines custom_code code_revision transformers_weights "
    "quantization_config fusion_config distributed_config kernel_config adapters adapter_config"
)

CODE_KEYS = frozenset(_CODE.split())
"""Keys that name code, other files or other formats: refused at every depth."""
