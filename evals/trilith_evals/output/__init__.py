"""Where a report goes: the console, JUnit XML, one HTML page, JSON, MLflow."""
