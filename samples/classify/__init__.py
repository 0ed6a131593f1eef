"""From PyTorch to a verified bundle on two engines: EfficientNet-Lite0 looks at two photographs."""
