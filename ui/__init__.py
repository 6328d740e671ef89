"""The web page and the API in front of a model: everything but `app.py` that knows Gradio."""
