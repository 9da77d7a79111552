"""What a model says to a prompt by greedy decoding."""


def say(model, tokenizer, prompt, tokens=8, **options):
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    ids = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, **options)
    return tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def editor_says(editor, prompt, tokens=8, **options):
    return say(editor.model, editor.tokenizer, prompt, tokens, **options)
