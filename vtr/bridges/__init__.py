"""Stores in forms that other tools read (parquet, WebDataset, Lance, FiftyOne), and back."""
