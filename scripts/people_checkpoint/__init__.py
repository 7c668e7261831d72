"""Makes the two shipped checkpoints from real rated sentences, real labelled faces and a rule for mixed evidence."""
