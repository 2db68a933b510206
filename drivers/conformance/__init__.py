"""The conformance kit: what every driver of a family must do, as cases for real and simulated hosts."""
