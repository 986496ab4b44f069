"""Section 5: a ResNet50 that regresses a body from an image, supervised by registered bodies and by 2D annotation."""
