"""scikit-learn's interface: MLPClassifier and MLPRegressor, with or without it installed."""
