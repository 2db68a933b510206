"""What people ask for: pydantic specs, and a library of ready-made blueprints."""
