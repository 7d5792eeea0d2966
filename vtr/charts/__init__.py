"""Every chart of vtr: told once (`kinds`), drawn as SVG for pages and for PNG and SVG files."""
