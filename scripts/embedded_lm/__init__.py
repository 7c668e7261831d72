"""How the embedded language model, the small decoder LM that ships with the kit, was made.

The model itself is a folder, `deepmlf_kit/assets/lm`, that loads through the ordinary `AutoModelForCausalLM` and
`AutoTokenizer`. The modules here made it: texts are read (`corpora`), split and cleaned of what is held out
(`split`), tokenised (`tokenizer`) and packed (`packing`), the model is pretrained (`pretrain`) and measured
(`perplexity`, `ngrams`, `probe`), and the figures become its model card (`card`). The command line around
them is `scripts/pretrain_lm.py`; none of this is needed to use the model.
"""
