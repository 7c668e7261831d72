"""Make the app's three example clips anew (`deepmlf_kit/assets/examples`): drawn faces, synthetic voices."""

from example_clips.make import make_examples

if __name__ == "__main__":
    for path in make_examples():
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
