"""Features, tokenizer, language model, training, generation, evaluation; imports schemas only and meets the stages
through shards."""
