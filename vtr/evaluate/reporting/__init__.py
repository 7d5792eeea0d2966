"""Reports: what a result folder says, as charts, frame strips and one HTML page."""
