"""An official checkpoint -> torch modules -> OpenVINO IR -> compressed IR in a model folder."""

# First of all: it keeps OpenVINO and NNCF from reporting their use, in threads that would outlive an interruption.
import pipeline  # noqa: F401
