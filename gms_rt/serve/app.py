"""All routes of a service as one ASGI application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gms_rt.serve.answer import error_value
from gms_rt.serve.dicomweb_api import DicomWebApi
from gms_rt.serve.guard import Guard, GuardSettings
from gms_rt.serve.http import Endpoint, ErrorForm, error_answer, with_error_answers
from gms_rt.serve.kserve_api import KServeApi, v2_error
from gms_rt.serve.monai_api import MonaiApi, monai_error
from gms_rt.serve.openapi import openapi_document
from gms_rt.serve.pages import Pages
from gms_rt.serve.refusals import RefusedError, UnknownError
from gms_rt.serve.segment_api import SegmentApi
from gms_rt.serve.service import Service

METRICS_KIND = "text/plain; version=0.0.4; charset=utf-8"


def app_from_service(service: Service, settings: GuardSettings) -> Guard:
    """The application: every interface, health, metrics, description and page, behind the guard."""
    segment, pages = SegmentApi(service), Pages()

    async def metrics(request: Request) -> Response:
        return Response(service.counters.text(), media_type=METRICS_KIND)

    async def openapi(request: Request) -> Response:
        return JSONResponse(openapi_document(service))

    def route(path: str, endpoint: Endpoint, method: str, form: ErrorForm = error_value) -> Route:
        return Route(path, with_error_answers(service, endpoint, form), methods=[method])

    routes = [
        route("/", pages.page, "GET"),
        route("/page/{name}", pages.page, "GET"),
        route("/v1/segment", segment.segment, "POST"),
        route("/metrics", metrics, "GET"),
        route("/openapi.json", openapi, "GET"),
    ]
    kserve = KServeApi(service)
    for path, endpoint, method in (
        ("/v2", kserve.v2_server, "GET"),
        ("/v2/health/live", kserve.v2_live, "GET"),
        ("/v2/health/ready", kserve.v2_ready, "GET"),
        ("/v2/models", kserve.v2_models, "GET"),
        ("/v2/repository/index", kserve.v2_index, "POST"),
    ):
        routes.append(route(path, endpoint, method, v2_error))
    for path, endpoint, method in (
        ("", kserve.v2_model, "GET"),
        ("/ready", kserve.v2_model_ready, "GET"),
        ("/config", kserve.v2_config, "GET"),
        ("/infer", kserve.v2_infer, "POST"),
    ):
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes.append(route(model + path, endpoint, method, v2_error))
    monai = MonaiApi(service, settings.token)
    for path, endpoint, method in (
        ("/info/", monai.monai_info, "GET"),
        ("/auth/", monai.monai_auth, "GET"),
        ("/auth/token", monai.monai_login, "POST"),
        ("/auth/token/valid", monai.monai_valid, "GET"),
        ("/infer/{model}", monai.monai_infer, "POST"),
        ("/session/", monai.monai_session, "PUT"),
        ("/session/{name}", monai.monai_session_info, "GET"),
        ("/session/{name}", monai.monai_session_end, "DELETE"),
        ("/datastore/", monai.monai_datastore, "GET"),
        ("/datastore/", monai.monai_upload, "PUT"),
        ("/datastore/", monai.monai_forget, "DELETE"),
        ("/datastore/image", monai.monai_image, "GET"),
        ("/datastore/label", monai.monai_label, "GET"),
        ("/datastore/label", monai.monai_submit, "PUT"),
    ):
        routes.append(route(path, endpoint, method, monai_error))
    dicomweb = DicomWebApi(service)
    studies = "/dicom-web/studies"
    series = studies + "/{study}/series"
    instances = series + "/{series}/instances"
    for path in (studies, studies + "/{study}"):
        routes.append(route(path, dicomweb.dicomweb_store, "POST"))
    searched = (studies, series, instances, "/dicom-web/series", "/dicom-web/instances", studies + "/{study}/instances")
    for path in searched:
        routes.append(route(path, dicomweb.dicomweb_search, "GET"))
    for path in (studies + "/{study}", series + "/{series}", instances + "/{instance}"):
        routes.append(route(path, dicomweb.dicomweb_retrieve, "GET"))
        routes.append(route(path + "/metadata", dicomweb.dicomweb_metadata, "GET"))

    async def unknown(request: Request, error: Exception) -> Response:
        return await error_answer(request, service, UnknownError("there is no such address", fix="see /openapi.json"))

    async def wrong_method(request: Request, error: Exception) -> Response:
        answer = await error_answer(request, service, MethodError("is not a method of this address"))
        answer.headers["Allow"] = (getattr(error, "headers", None) or {}).get("Allow", "")
        return answer

    application = Starlette(routes=routes, exception_handlers={404: unknown, 405: wrong_method})
    application.router.redirect_slashes = False
    return Guard(application, service, settings, routes)


class MethodError(RefusedError):
    """A method that an address does not have."""

    reason = "method"
    status = 405
