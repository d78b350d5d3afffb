// The label map that dcmjs, the parser of OHIF and Cornerstone, reads from a DICOM SEG.
//   node dcmjs_labels.cjs SEG IMAGES.json OUT
// IMAGES.json: the source's frames in order, each {id, sop, series, frameOfReference, rows, columns, orientation,
// position}; orientation and position are null where they are not known. OUT gets uint16 frames x rows x columns. The
// segments' names, codes and colours are printed as JSON. Finds dcmjs where NODE_PATH says.
const fs = require("fs");
const dcmjs = require("dcmjs");

const [segPath, imagesPath, outPath] = process.argv.slice(2);
const images = JSON.parse(fs.readFileSync(imagesPath, "utf8"));
const byId = new Map(images.map((image) => [image.id, image]));
const modules = {
    generalSeriesModule: (image) => ({ seriesInstanceUID: image.series, seriesInstanceUid: image.series }),
    sopCommonModule: (image) => ({ sopInstanceUID: image.sop, sopInstanceUid: image.sop }),
    imagePixelModule: (image) => ({ rows: image.rows, columns: image.columns }),
    imagePlaneModule: (image) => ({
        rows: image.rows,
        columns: image.columns,
        rowCosines: image.orientation && image.orientation.slice(0, 3),
        columnCosines: image.orientation && image.orientation.slice(3),
        imagePositionPatient: image.position,
        frameOfReferenceUID: image.frameOfReference,
    }),
    instance: (image) => ({
        SeriesInstanceUID: image.series,
        FrameOfReferenceUID: image.frameOfReference,
        ImagePositionPatient: image.position,
    }),
};
const metadata = { get: (name, id) => modules[name] && modules[name](byId.get(id)) };
const data = fs.readFileSync(segPath);
const buffer = data.buffer.slice(data.byteOffset, data.byteOffset + data.length);
const found = dcmjs.adapters.Cornerstone.Segmentation.generateToolState(
    images.map((image) => image.id),
    buffer,
    metadata,
);
fs.writeFileSync(outPath, Buffer.from(found.labelmapBufferArray[0]));
const segments = found.segMetadata.data.filter(Boolean).map((segment) => ({
    number: segment.SegmentNumber,
    label: segment.SegmentLabel,
    type: [].concat(segment.SegmentedPropertyTypeCodeSequence)[0].CodeValue,
    colour: dcmjs.data.Colors.dicomlab2RGB(segment.RecommendedDisplayCIELabValue).map((c) => Math.round(c * 255)),
}));
console.log(JSON.stringify({ maps: found.labelmapBufferArray.length, segments }));
