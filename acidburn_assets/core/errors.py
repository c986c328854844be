"""The one tree of errors that Acidburn raises on purpose.

    AcidburnError
    ├── TransientError            the same call may succeed later: retry with patience
    │   ├── StoreUnavailable      the object store did not answer, or asked us to slow down
    │   ├── DatabaseUnavailable   Postgres is away or dropped the connection
    │   ├── ServiceUnavailable    a hub, an LLM or another service did not answer
    │   ├── WorkFolderUnavailable the local work folder is full or fails
    │   └── ProcessLost           a process or device that worked for us is gone
    └── PermanentError            retrying changes nothing: a person must mend something
        ├── ConfigError           a setting, datasets.yaml or a command's argument is wrong
        │   └── QuestionError     a question cannot be asked as it is
        ├── SourceError           a dataset cannot be read as it is declared
        │   └── SourceChanged     a dataset is no longer what was planned
        ├── StoreError            the object store refused
        │   ├── ObjectMissing     no object under that key
        │   └── ObjectCorrupt     an object's content is not what its checksum says
        ├── SchemaError           a table or record is not what its schema promises
        ├── ModelError            an encoder is missing, or does not fit the corpus
        ├── DatabaseError         Postgres refused, or lacks something we need
        ├── BudgetError           work would pass a limit on money that a person set
        └── NotMaterialized       something upstream has not been made yet

Every message says what is wrong, which thing, and how to mend it. Adapters translate foreign
exceptions at their door with `raise … from error`; no message holds a secret.
"""


class AcidburnError(Exception):
    """Base of all errors that Acidburn raises on purpose."""


class TransientError(AcidburnError):
    """The same call may succeed later."""


class StoreUnavailable(TransientError):
    """The object store did not answer, or asked us to slow down."""


class DatabaseUnavailable(TransientError):
    """Postgres is away or dropped the connection; the open transaction left nothing behind."""


class ServiceUnavailable(TransientError):
    """A hub, an LLM or another service did not answer."""


class WorkFolderUnavailable(TransientError):
    """The local work folder is full or fails; nothing of the unfinished work was stored."""


class ProcessLost(TransientError):
    """A process or device that worked for us is gone; what was finished is kept."""


class PermanentError(AcidburnError):
    """Trying again changes nothing until a person mends something."""


class ConfigError(PermanentError):
    """A setting, datasets.yaml or a command's argument is wrong."""


class QuestionError(ConfigError):
    """A question cannot be asked as it is. Its message is shown to whoever asked, and names
    nothing of how Acidburn is set up."""


class SourceError(PermanentError):
    """A dataset cannot be read as it is declared."""


class SourceChanged(SourceError):
    """A dataset is no longer what was planned."""


class StoreError(PermanentError):
    """The object store refused."""


class ObjectMissing(StoreError):
    """No object under that key."""


class ObjectCorrupt(StoreError):
    """An object's content is not what its checksum says.

    Args:
        message: for people.
        key: of the object whose bytes are damaged; "" where they are whole but not those expected.
    """

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class SchemaError(PermanentError):
    """A table or record is not what its schema promises."""


class ModelError(PermanentError):
    """An encoder is missing, or does not fit the corpus."""


class DatabaseError(PermanentError):
    """Postgres refused, or lacks something that Acidburn needs."""


class BudgetError(PermanentError):
    """Work would pass a limit on money that a person set."""


class NotMaterialized(PermanentError):
    """Something upstream has not been made yet."""
