-- Sends every CT series to the node once no image has arrived for StableAge seconds.
function OnStableSeries(seriesId, tags, metadata)
  if tags['Modality'] == 'CT' then
    RestApiPost('/modalities/diffseg/store', DumpJson({Resources = {seriesId}, Synchronous = false}))
  end
end
