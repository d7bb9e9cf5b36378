"""Language models and classical models side by side: one SDK, one gateway, one way to ship them."""
