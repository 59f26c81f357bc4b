"""The values that calls answer with: results, what they contain, analyses, signatures, and mlld's events.

They are plain dataclasses with the names and fields of mlld's own Python SDK.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.scripts.types import AnalysisError as AnalysisError
    from mlld_sdk.scripts.types import AnalyzeResult as AnalyzeResult
    from mlld_sdk.scripts.types import ContentSignature as ContentSignature
    from mlld_sdk.scripts.types import Effect as Effect
    from mlld_sdk.scripts.types import Executable as Executable
    from mlld_sdk.scripts.types import ExecuteResult as ExecuteResult
    from mlld_sdk.scripts.types import FilesystemStatus as FilesystemStatus
    from mlld_sdk.scripts.types import FileVerifyResult as FileVerifyResult
    from mlld_sdk.scripts.types import Guard as Guard
    from mlld_sdk.scripts.types import GuardDenial as GuardDenial
    from mlld_sdk.scripts.types import HandleEvent as HandleEvent
    from mlld_sdk.scripts.types import Import as Import
    from mlld_sdk.scripts.types import LabeledValue as LabeledValue
    from mlld_sdk.scripts.types import Metrics as Metrics
    from mlld_sdk.scripts.types import Needs as Needs
    from mlld_sdk.scripts.types import SessionFinalState as SessionFinalState
    from mlld_sdk.scripts.types import SessionWrite as SessionWrite
    from mlld_sdk.scripts.types import StateWrite as StateWrite
    from mlld_sdk.scripts.types import Streaming as Streaming
    from mlld_sdk.scripts.types import TraceEvent as TraceEvent
    from mlld_sdk.scripts.types import Unanswered as Unanswered
    from mlld_sdk.scripts.types import Variable as Variable
else:
    __all__, __getattr__, __dir__ = exports(__name__)
