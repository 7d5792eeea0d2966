"""The backbone: any Hugging Face dual encoder."""
