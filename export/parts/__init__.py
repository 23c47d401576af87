"""What `train_part.py` is made of: outputs of stages, a stage that is trained, and a run joined of them."""
