"""The backbone: any Hugging Face dual encoder whose text rules are known.

`backbone` loads one and encodes frames and texts; `hub` finds it; `loading` proves its weights
whole; `text` holds the rules of each family; `preprocess` makes the pictures. Nothing is imported
here: worker processes need `vtr.clip.preprocess` alone, without torch and transformers.
"""
