"""The tutorial's API: Flask-RESTful, one prediction per request, no batching."""

import os

import joblib
from flask import Flask
from flask_restful import Api, Resource, reqparse

from house import FEATURES

model = joblib.load(os.environ["MODEL_FILE"])
parser = reqparse.RequestParser()
for feature in FEATURES:
    parser.add_argument(feature, type=float, required=True, help=f"No {feature} provided")


class Predict(Resource):
    """`POST /predict`."""

    def post(self) -> dict[str, float]:
        """Predict the price of one house."""
        house = parser.parse_args()
        return {"prediction": model.predict([[house[feature] for feature in FEATURES]])[0]}


app = Flask(__name__)
Api(app).add_resource(Predict, "/predict")
