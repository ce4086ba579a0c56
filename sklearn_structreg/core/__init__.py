"""The scikit-learn contract on a private skorch net, shared by every method."""
