"""How the demo's tiny CLIP in `vtr/demo/model` was trained and measured; not part of the wheel."""
