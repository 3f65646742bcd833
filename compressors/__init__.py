"""Model -> smaller model: anatomy, calibration, one method a file, recipes, export."""
