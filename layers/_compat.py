"""The APIs of other packages that `layers` uses although they are not public.

A release of those packages may move or drop them without notice. So they are named here, in one
place, and looked up by `PrivateAPI.load`, which raises instead of falling back to something else:
another implementation would compute the same values at another speed, unnoticed.
"""

import importlib
from typing import Any, NamedTuple


class MissingAPIError(ImportError):
    """An installed package lacks a private API that `layers` needs."""


class PrivateAPI(NamedTuple):
    """A private function or class of another package.

    Attributes:
        module: the module that holds it.
        name: its name in the module.
        package: the package that must be installed, by the name of its import.
        versions: the versions known to have it.
        purpose: what `layers` uses it for.
    """

    module: str
    name: str
    package: str
    versions: str
    purpose: str

    def load(self) -> Any:
        """Return the function or class.

        Raises:
            MissingAPIError: the installed version does not have it.
        """
        try:
            return getattr(importlib.import_module(self.module), self.name)
        except (ImportError, AttributeError) as error:
            version = getattr(importlib.import_module(self.package), "__version__", "")
            raise MissingAPIError(
                f"{self.module}.{self.name} is missing from {self.package} {version} "
                f"(needed for {self.purpose}); install {self.package}{self.versions}"
            ) from error


KERAS_RNN = PrivateAPI(
    module="keras.src.backend",
    name="rnn",
    package="keras",
    versions=">=3.15,<3.16",
    # The public keras.ops.scan is slower in a TensorFlow graph.
    purpose="the loop over time",
)
XLA_CONTEXT = PrivateAPI(
    module="tensorflow.python.ops.control_flow_util",
    name="GraphOrParentsInXlaContext",
    package="tensorflow",
    versions=">=2.21,<2.22",
    purpose="telling whether XLA compiles the calling function",
)
XLA_BARRIER = PrivateAPI(
    module="tensorflow.compiler.tf2xla.python.xla",
    name="optimization_barrier",
    package="tensorflow",
    versions=">=2.21,<2.22",
    purpose="joining arrays in code that XLA compiles",
)

#: By backend, the private APIs that `layers` needs there.
PRIVATE_APIS = {
    "tensorflow": (KERAS_RNN, XLA_CONTEXT, XLA_BARRIER),
    "jax": (KERAS_RNN,),
}
